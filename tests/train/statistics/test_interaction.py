import numpy as np
import pytest
from scipy.stats import fisher_exact

from train.statistics.interaction import aucs_differ, holm, shares_differ


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04: times 4 3 2 1 is .04 .06 .06 .04, and never below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []


def test_shares_of_two_groups_are_fishers_exact_test() -> None:
    # 9 of 12 against 3 of 10.
    event = np.array([1] * 9 + [0] * 3 + [1] * 3 + [0] * 7, bool)
    group = np.repeat([0, 1], [12, 10])
    exact = fisher_exact([[9, 3], [3, 7]]).pvalue  # .0836
    assert shares_differ(event, group, seed=0) == pytest.approx(exact, abs=0.02)
    assert shares_differ(np.tile([True, False], 11), np.repeat([0, 1], [12, 10]), 0) == 1


def test_aucs_of_two_groups_by_hand() -> None:
    """Two of each class in each group: one ranks them right, the other wrong."""
    truth = np.array([1, 1, 0, 0, 1, 1, 0, 0], bool)
    score = np.array([4.0, 4.0, 1.0, 1.0, 1.0, 1.0, 4.0, 4.0])
    group = np.repeat([0, 1], 4)
    # Each class gives the first group two high (1/6), two low (1/6) or one of each (4/6). The AUCs
    # are 1 and 0 again where it has high positives with low negatives, or the reverse: 2 of 36.
    assert aucs_differ(truth, score, group, seed=0) == pytest.approx(2 / 36, abs=0.02)
    # The same scores in both groups: no draw lies closer.
    assert aucs_differ(truth, np.tile(score[:4], 2), group, seed=0) == 1


def test_equal_groups_are_seldom_found_to_differ() -> None:
    chance = np.random.default_rng(0)
    found = []
    for seed in range(8):
        truth = chance.random(60) < 0.4
        score = truth + chance.normal(0, 1, 60)
        found.append(aucs_differ(truth, score, np.repeat([0, 1, 2], 20), seed))
    assert 0.2 < np.mean(found) < 0.8 and min(found) > 0.01
