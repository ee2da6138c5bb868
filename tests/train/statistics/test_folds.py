import math

import pytest

from train.statistics.folds import mean_of_folds


def test_the_interval_allows_for_shared_training_patients_by_hand() -> None:
    # Variance .001; times 1/5 + 20/80 = .45; Student's t of 4 degrees of freedom 2.776445.
    found = mean_of_folds([0.80, 0.82, 0.84, 0.86, 0.88], [20] * 5)
    assert found.value == pytest.approx(0.84)
    assert found.sd == pytest.approx(math.sqrt(0.001))
    half = 2.776445 * math.sqrt(0.45 * 0.001)
    assert (found.low, found.high) == pytest.approx((0.84 - half, 0.84 + half), abs=1e-6)
    # As if folds were independent it would be narrower.
    assert half > 2.776445 * math.sqrt(0.001 / 5)


def test_folds_of_other_sizes_and_what_lies_beyond_one() -> None:
    # 10 of 40 and 30 of 40: the mean of 10/30 and 30/10 is 5/3; t of one degree of freedom 12.7062.
    found = mean_of_folds([0.99, 0.97], [10, 30])
    half = 12.7062 * math.sqrt((1 / 2 + 5 / 3) * 0.0002)
    assert found.low == pytest.approx(0.98 - half, abs=1e-5)
    assert found.high == 1


def test_folds_of_one_value_have_no_interval() -> None:
    assert mean_of_folds([1.0, 1.0, 1.0], [10, 10, 10]) == (1, 0, None, None)
