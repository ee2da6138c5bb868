import numpy as np
import pytest

from train.statistics.delong import delong, delong_p

# The example of DeLong et al. 1988 (ovarian cancer with intestinal obstruction) without its six
# incomplete rows, as SAS/STAT documents it for PROC LOGISTIC, "Comparing Receiver Operating
# Characteristic Curves" (support.sas.com/documentation/cdl/en/statug/68162/HTML/default/
# statug_logistic_examples08.htm): albumin, total protein, K-G score, popind.
ROWS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6 5 1
"""
TABLE = np.array(ROWS.split(), float).reshape(-1, 4)
TRUTH = TABLE[:, 3] == 1
ALBUMIN, PROTEIN, KG = TABLE[:, 0], TABLE[:, 1], 10 - TABLE[:, 2]


@pytest.mark.parametrize(
    ("score", "auc", "se"),
    [(KG, 0.7258, 0.1028), (ALBUMIN, 0.7366, 0.0927), (PROTEIN, 0.6478, 0.1000)],
)
def test_areas_and_standard_errors_of_the_published_example(score, auc, se) -> None:
    found = delong(TRUTH, score)
    assert found is not None
    assert (found.auc, found.se) == pytest.approx((auc, se), abs=5e-5)
    assert found.low is not None
    # On the logit scale: the interval of the odds of the AUC is symmetric in its logarithm.
    odds = [p / (1 - p) for p in (found.low, found.auc, found.high)]
    assert odds[0] * odds[2] == pytest.approx(odds[1] ** 2)


@pytest.mark.parametrize(("score", "p_value"), [(ALBUMIN, 0.9102), (PROTEIN, 0.4561)])
def test_differences_of_the_published_example(score, p_value) -> None:
    assert delong_p(TRUTH, score, KG) == pytest.approx(p_value, abs=5e-5)


def test_variance_by_the_definition_of_1988() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(60) < 0.4
    score = np.round(generator.random(60) + 0.3 * truth, 1)  # ties
    positive, negative = score[truth][:, None], score[~truth][None, :]
    above = (positive > negative) + 0.5 * (positive == negative)  # psi of their equation 2
    variance = above.mean(1).var(ddof=1) / len(positive) + above.mean(0).var(ddof=1) / negative.size
    found = delong(truth, score)
    assert found is not None
    assert (found.auc, found.se**2) == pytest.approx((above.mean(), variance))


def test_undefined() -> None:
    truth = np.array([True, False, False, False])
    assert delong(truth, np.arange(4.0)) is None
    assert delong_p(truth, np.arange(4.0), np.arange(4.0)) is None
    assert delong_p(TRUTH, KG, 2 * KG) is None  # the same ranks
    perfect = delong(TRUTH, TRUTH.astype(float))
    assert perfect is not None
    assert (perfect.auc, perfect.se, perfect.low, perfect.high) == (1.0, 0.0, None, None)


def test_a_difference_without_variance_has_no_test_whatever_rounding_does() -> None:
    # Of the three negatives the positives have below them 1, 1, 2 (ties half) by the first score
    # and 2, 2, 3 by the second: one less, always; so have the negatives. As shares of thirds that
    # constant difference had a variance of 2e-33, and a p-value of 0.
    truth = np.array([True, True, True, False, False, False])
    first, second = np.array([2.0, 2, 3, 2, 2, 4]), np.array([2.0, 2, 4, 1, 1, 3])
    one, two = delong(truth, first), delong(truth, second)
    assert one is not None and two is not None
    assert (one.auc, two.auc) == pytest.approx((4 / 9, 7 / 9))
    assert delong_p(truth, first, second) is None
