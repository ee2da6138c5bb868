from functools import partial

import numpy as np
import pytest
from sklearn import metrics

from train.statistics import binary
from train.statistics.binary import (
    choose_threshold,
    confusion,
    inconsistency,
    lr_negative,
    lr_positive,
    npv,
    value,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.random(300) < 0.3
SCORE = np.round(np.clip(0.3 * TRUTH + 0.7 * RNG.random(300), 0, 1), 2)  # rounded: with ties
WEIGHT = RNG.integers(0, 4, (5, 300)).astype(float)
HALF = {"threshold": 0.5}


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (binary.roc_auc, metrics.roc_auc_score),
        (binary.average_precision, metrics.average_precision_score),
    ],
)
def test_scikit_learn_gives_the_same_area_with_weights_and_ties(ours, reference) -> None:
    expected = [reference(TRUTH, SCORE, sample_weight=weight) for weight in WEIGHT]
    assert ours(TRUTH, SCORE, WEIGHT) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (binary.accuracy, metrics.accuracy_score),
        (binary.sensitivity, metrics.recall_score),
        (binary.specificity, partial(metrics.recall_score, pos_label=False)),
        (binary.precision, metrics.precision_score),
        (binary.f1, metrics.f1_score),
    ],
)
def test_scikit_learn_gives_the_same_rates_with_weights(ours, reference) -> None:
    expected = [reference(TRUTH, SCORE > 0.5, sample_weight=weight) for weight in WEIGHT]
    assert ours(TRUTH, SCORE, WEIGHT, **HALF) == pytest.approx(expected, abs=1e-12)


def test_auc_and_precision_by_hand() -> None:
    truth, score = np.array([True, True, False, False]), np.array([0.8, 0.4, 0.4, 0.2])
    # Pairs: 0.8 over both, 0.4 over 0.2 and level with 0.4: 3.5 of 4.
    assert value(binary.roc_auc, truth, score) == 3.5 / 4
    # Recall 1/2 at precision 1, the other half at 2 of 3.
    assert value(binary.average_precision, truth, score) == pytest.approx(0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize(
    ("metric", "truth", "score"),
    [
        (binary.roc_auc, [True, True], [0.1, 0.9]),
        (binary.roc_auc, [False, False], [0.1, 0.9]),
        (binary.average_precision, [True, True], [0.1, 0.9]),
        (binary.average_precision, [False, False], [0.1, 0.9]),
        (partial(binary.sensitivity, **HALF), [False], [0.9]),
        (partial(binary.specificity, **HALF), [True], [0.9]),
        (partial(binary.precision, **HALF), [True], [0.1]),
        (partial(binary.f1, **HALF), [False], [0.1]),
        (binary.roc_auc, [], []),
        (partial(binary.accuracy, **HALF), [], []),
    ],
)
def test_undefined_is_none(metric, truth: list[bool], score: list[float]) -> None:
    assert value(metric, np.array(truth, bool), np.array(score, float)) is None


def test_a_score_at_the_threshold_is_negative() -> None:
    truth, score = np.array([True, True, False, False, False]), np.array([0.5, 0.6, 0.5, 0.7, 0.8])
    assert confusion(truth, score, 0.5) == {
        "true_positive": 1,
        "false_negative": 1,
        "false_positive": 2,
        "true_negative": 1,
    }


def test_youden_by_hand() -> None:
    truth = np.array([False, False, True, False, True, True])
    score = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])
    # Above 0.25: 3 of 3 and 2 of 3 right; above 0.65: 2 of 3 and 3 of 3: a tie, the lower one.
    assert choose_threshold(truth, score, "youden") == pytest.approx(0.25)


def test_youden_is_the_best_point_of_scikit_learns_curve() -> None:
    false_positive, true_positive, _ = metrics.roc_curve(TRUTH, SCORE)
    threshold = choose_threshold(TRUTH, SCORE, "youden")
    assert threshold is not None
    rates = [
        value(partial(rate, threshold=threshold), TRUTH, SCORE)
        for rate in (binary.sensitivity, binary.specificity)
    ]
    assert sum(rates) - 1 == pytest.approx((true_positive - false_positive).max())


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("sensitivity_0.5", 0.65), ("sensitivity_0.75", 0.45), ("sensitivity_1", 0.1)],
)
def test_threshold_for_a_sensitivity_by_hand(rule: str, expected: float) -> None:
    truth = np.array([True, False, True, False, True, True])
    score = np.array([0.2, 0.4, 0.5, 0.6, 0.7, 0.9])
    assert choose_threshold(truth, score, rule) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sensitivity", "n", "found"), [("0.56", 50, 28), ("0.55", 100, 55), ("0.56", 25, 14)]
)
def test_a_sensitivity_is_reached_by_as_many_as_it_says(
    sensitivity: str, n: int, found: int
) -> None:
    assert float(sensitivity) * n > found  # as floats, which would ask for one more
    score = np.arange(1, n + 1) / (n + 1)
    threshold = choose_threshold(np.ones(n, bool), score, f"sensitivity_{sensitivity}")
    assert threshold is not None
    assert (score > threshold).sum() == found


def test_thresholds_between_neighbouring_floats_still_separate_them() -> None:
    low = 0.5
    score = np.array([low, np.nextafter(low, 1)])
    threshold = choose_threshold(np.array([False, True]), score, "youden")
    assert threshold is not None
    assert list(score > threshold) == [False, True]


@pytest.mark.parametrize(
    ("truth", "score", "rule"),
    [
        ([True, True], [0.2, 0.4], "youden"),
        ([False, True], [0.4, 0.4], "youden"),
        # Worse than chance: the better one of two has a sensitivity of 1/2, a specificity of 0.
        ([False, True, True], [0.4, 0.35, 0.2], "youden"),
        ([False, True, False, True], [0.2, 0.2, 0.4, 0.4], "youden"),
        ([False, False], [0.2, 0.4], "sensitivity_0.9"),
        ([True, True], [0.0, 0.4], "sensitivity_0.9"),
        ([], [], "youden"),
    ],
)
def test_no_threshold(truth: list[bool], score: list[float], rule: str) -> None:
    assert choose_threshold(np.array(truth, bool), np.array(score, float), rule) is None


def test_an_unknown_rule() -> None:
    with pytest.raises(ValueError, match="use youden or sensitivity_S"):
        choose_threshold(TRUTH, SCORE, "sensitivity_90")


def test_predictive_values_and_likelihood_ratios_by_hand() -> None:
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    p = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.2, 0.1, 0.1, 0.1])
    # At .5: 3 true and 1 false positive, 1 false and 5 true negatives.
    found = [
        value(partial(metric, threshold=0.5), truth, p)
        for metric in (npv, lr_positive, lr_negative)
    ]
    assert found == pytest.approx([5 / 6, (3 / 4) / (1 / 6), (1 / 4) / (5 / 6)])
    # At .65 no negative is called positive, and at .05 every one is.
    assert value(partial(lr_positive, threshold=0.65), truth, p) is None
    assert value(partial(lr_negative, threshold=0.05), truth, p) is None
    assert value(partial(npv, threshold=0.05), truth, p) is None
    assert value(partial(lr_positive, threshold=0.5), truth[:4], p[:4]) is None
    # The first negative drawn twice, the others once: 2 of 7 are false positives.
    weight = np.array([[1.0, 1, 1, 1, 2, 1, 1, 1, 1, 1]])
    assert lr_positive(truth, p, weight, threshold=0.5) == pytest.approx([(3 / 4) / (2 / 7)])


def test_inconsistency_by_hand() -> None:
    parent_truth = np.array([0, 1, np.nan, 0, 1, 0])
    parent = np.array([0.5, 0.4, 0.2, 0.6, 0.4, 0.1])
    child = np.array([0.6, 0.7, 0.9, 0.9, 0.5, 0.2])
    found = inconsistency(parent_truth, parent, child)
    assert found.type_1_N.nonzero()[0].tolist() == [0]
    assert found.type_2_N.nonzero()[0].tolist() == [1]
    assert found.unknown_N.nonzero()[0].tolist() == [2]
    served = inconsistency(parent_truth, parent, child, parent_threshold=0.3, child_threshold=0.1)
    assert served.type_1_N.nonzero()[0].tolist() == [5]
    assert not served.type_2_N.any()
