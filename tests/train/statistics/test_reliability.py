import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from train.statistics import reliability
from train.statistics.binary import value

RNG = np.random.default_rng(0)
P = RNG.random(400)
TRUTH = RNG.random(400) < expit(0.3 + 0.6 * logit(P))
WEIGHT = RNG.integers(0, 4, (4, 400)).astype(float)


def test_brier_is_scikit_learns_with_weights() -> None:
    expected = [brier_score_loss(TRUTH, P, sample_weight=weight) for weight in WEIGHT]
    assert reliability.brier(TRUTH, P, WEIGHT) == pytest.approx(expected, abs=1e-12)


def test_an_update_is_ridge_regression_of_the_change() -> None:
    x = logit(P)

    def loss(line: np.ndarray, weight: np.ndarray) -> float:
        z = line[0] + line[1] * x
        return float(
            weight @ (np.logaddexp(0, z) - TRUTH * z) + (line - [0, 1]) @ (line - [0, 1]) / 2
        )

    found = reliability.updated_line(TRUTH, P, WEIGHT)
    expected = [minimize(loss, [0.0, 1.0], args=weight).x for weight in WEIGHT]
    assert found == pytest.approx(np.array(expected), abs=1e-4)
    # Two patients whom the score separates: a line without priors has no end.
    separated = reliability.updated_line(
        np.array([False, True]), np.array([0.4, 0.6]), np.ones((1, 2))
    )
    assert np.isfinite(separated).all() and separated[0, 1] > 1


def test_ece_and_bins_by_hand() -> None:
    p = np.array([0.05, 0.05, 0.35, 0.95, 0.95, 1.0])
    truth = np.array([False, True, True, True, True, False])
    # Bin 0: .05 against 1/2, two rows; bin 3: .35 against 1; bin 9: 2.9/3 against 2/3.
    expected = (2 * 0.45 + 0.65 + 3 * (2.9 / 3 - 2 / 3)) / 6
    assert value(reliability.ece, truth, p) == pytest.approx(expected)
    bins = reliability.reliability_curve(truth, p)
    assert [(item["low"], item["n"], item["observed"]) for item in bins] == [
        (0.0, 2, 0.5),
        (0.3, 1, 1.0),
        (0.9, 3, pytest.approx(2 / 3)),
    ]
    assert bins[2]["mean_probability"] == pytest.approx(2.9 / 3)


def test_what_the_ece_is_where_probabilities_are_right() -> None:
    def right(p: list[float], patients: list[str]) -> tuple[float, float]:
        found = reliability.ece_if_right(np.array(p), patients, resamples=4000, seed=0)
        assert found is not None
        return found

    # One row at .2: |0 - .2| in four of five draws, |1 - .2| in the fifth.
    mean, high = right([0.2], ["a"])
    assert mean == pytest.approx(0.8 * 0.2 + 0.2 * 0.8, abs=0.02)
    assert high == pytest.approx(0.8)
    # Two rows in one bin: of one patient they are alike; of two, one in two draws is even.
    assert right([0.5, 0.5], ["a", "a"]) == pytest.approx((0.5, 0.5))
    assert right([0.5, 0.5], ["a", "b"])[0] == pytest.approx(0.25, abs=0.02)
    # As many rows as the docstring of `ece` simulates.
    p = RNG.random(200)
    assert right(p.tolist(), [str(it) for it in range(200)])[0] == pytest.approx(0.07, abs=0.02)
    assert reliability.ece_if_right(p, p, resamples=0, seed=0) is None


def test_probabilities_that_are_right_by_construction() -> None:
    """Of five rows at .2 one is positive, of five at .8 four: every measure by hand."""
    p = np.repeat([0.2, 0.8], 5)
    truth = np.array([True] + [False] * 4 + [True] * 4 + [False])
    assert value(reliability.ece, truth, p) == pytest.approx(0)
    assert value(reliability.brier, truth, p) == pytest.approx(0.2 * 0.8)
    assert value(reliability.calibration_slope, truth, p) == pytest.approx(1)
    assert value(reliability.calibration_intercept, truth, p) == pytest.approx(0, abs=1e-9)
    assert value(reliability.calibration_in_the_large, truth, p) == pytest.approx(0, abs=1e-9)
    # Logits twice as far out: half the slope; odds tripled: an intercept of -ln 3.
    bold = expit(2 * logit(p))
    assert value(reliability.calibration_slope, truth, bold) == pytest.approx(0.5)
    high = expit(logit(p) + np.log(3))
    assert value(reliability.calibration_intercept, truth, high) == pytest.approx(-np.log(3))
    assert value(reliability.calibration_in_the_large, truth, high) == pytest.approx(-np.log(3))


def test_where_the_classes_overlap_little_there_is_a_line_all_the_same() -> None:
    """Full Newton steps go to and fro for ever here, and held to a length they do, too."""
    positive = [2.0, 2.4, 2.4, 2.6, 2.8, 4.3, 5.4]
    negative = [-13.6, -7, -6.2, -5.9, -4.9, -2.8, -2.5, -1.7, -0.7, -0.4, 0.8, 1.6, 2.1]
    x, truth = np.array(positive + negative), np.arange(20) < 7
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x[:, None], truth)
    slope = value(reliability.calibration_slope, truth, expit(x))
    intercept = value(reliability.calibration_intercept, truth, expit(x))
    assert slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert intercept == pytest.approx(model.intercept_[0], rel=1e-4)


def test_the_calibration_line_is_scikit_learns_unpenalised_regression() -> None:
    slope = reliability.calibration_slope(TRUTH, P, WEIGHT)
    intercept = reliability.calibration_intercept(TRUTH, P, WEIGHT)
    for b, weight in enumerate(WEIGHT):
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        model.fit(logit(P)[:, None], TRUTH, sample_weight=weight)
        assert (intercept[b], slope[b]) == pytest.approx(
            (model.intercept_[0], model.coef_[0, 0]), abs=1e-5
        )


@pytest.mark.parametrize(
    ("truth", "p"),
    [
        ([True, True], [0.2, 0.4]),
        ([False, False, True], [0.1, 0.3, 0.4]),  # separated
        ([False, True, True], [0.3, 0.3, 0.4]),  # separated but for a tie
        ([True, False], [0.1, 0.3]),  # separated the wrong way round
        ([True, False], [0.3, 0.3]),  # all equal
    ],
)
def test_no_finite_calibration_line(truth: list[bool], p: list[float]) -> None:
    assert value(reliability.calibration_slope, np.array(truth), np.array(p)) is None
    assert value(reliability.calibration_intercept, np.array(truth), np.array(p)) is None


def test_probabilities_of_zero_and_one_have_a_finite_logit() -> None:
    p, truth = np.array([0.0, 0.0, 1.0, 1.0]), np.array([False, True, False, True])
    assert value(reliability.calibration_slope, truth, p) == pytest.approx(0, abs=1e-9)


def test_the_large_needs_both_classes() -> None:
    truth, p = np.array([True, True]), np.array([0.2, 0.4])
    assert value(reliability.calibration_in_the_large, truth, p) is None


def test_net_benefit_by_hand() -> None:
    truth = np.array([True, True, False, False, False])
    p = np.array([0.9, 0.3, 0.6, 0.2, 0.1])
    curve = reliability.decision_curve(truth, p)
    assert curve is not None
    at = curve["threshold"].index(0.25)
    # Above 1/4: two true, one false of five; the odds of 1/4 are 1/3.
    assert curve["model"][at] == pytest.approx(2 / 5 - 1 / 5 / 3)
    assert curve["treat_all"][at] == pytest.approx(2 / 5 - 3 / 5 / 3)
    assert curve["model"][curve["threshold"].index(0.95)] == 0
    # At a threshold equal to the prevalence treating all has no benefit.
    assert curve["treat_all"][curve["threshold"].index(0.4)] == 0
    assert reliability.decision_curve(np.empty(0, bool), np.empty(0)) is None
