import numpy as np
import pytest

from train.statistics.bands import (
    band,
    observed_at,
    precision_at,
    sensitivity_at,
)
from train.statistics.reliability import net_benefit_at

TRUTH = np.array([True, False, True, False])
SCORE = np.array([0.9, 0.8, 0.4, 0.2])
# All rows once; without the first; without the negatives.
WEIGHTS = np.array([[1.0, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 0]])


def test_the_roc_curve_of_each_draw_by_hand() -> None:
    found = sensitivity_at(TRUTH, SCORE, WEIGHTS, np.array([0, 0.25, 0.5, 0.75, 1]))
    # Up to 1/2 at no false positive, right to 1/2, up to 1; without the first: right, then up.
    assert found[0].tolist() == [0.5, 0.5, 1, 1, 1]
    assert found[1].tolist() == [0, 0, 1, 1, 1]
    assert np.isnan(found[2]).all()


def test_the_roc_curve_is_linear_over_a_tie() -> None:
    tied = np.array([0.5, 0.5, 0.5, 0.5])
    assert sensitivity_at(TRUTH, tied, WEIGHTS[:1], np.array([0.3])).tolist() == [[0.3]]


def test_the_pr_curve_of_each_draw_by_hand() -> None:
    found = precision_at(TRUTH, SCORE, WEIGHTS, np.array([0, 0.5, 0.6, 1]))
    assert found[0] == pytest.approx([1, 1, 2 / 3, 2 / 3])
    assert found[1] == pytest.approx([1 / 2] * 4)  # one positive, below one negative
    assert found[2] == pytest.approx([1] * 4)
    assert np.isnan(precision_at(~TRUTH, SCORE, WEIGHTS[2:], np.array([0.5]))).all()


def test_net_benefit_by_hand() -> None:
    found = net_benefit_at(TRUTH, SCORE, WEIGHTS, np.array([0.3, 0.5]))
    # At .3 two true and one false positive, whose cost is 3/7; at .5 one of each.
    assert found[0] == pytest.approx([2 / 4 - 3 / 7 / 4, 0])
    assert found[1] == pytest.approx([1 / 3 - 3 / 7 / 3, -1 / 3])


def test_the_calibration_curve_of_right_probabilities_is_the_diagonal() -> None:
    p = np.repeat([0.2, 0.8], 5)
    truth = np.array([1, 0, 0, 0, 0, 1, 1, 1, 1, 0], bool)
    grid = np.array([0.1, 0.5, 0.9])
    ones, one_class = np.ones((1, 10)), truth[None].astype(float)
    assert observed_at(truth, p, ones, grid)[0] == pytest.approx(grid)
    assert np.isnan(observed_at(truth, p, one_class, grid)).all()


def test_a_band_is_of_patients() -> None:
    def mean(_: object, score: np.ndarray, weight: np.ndarray, grid: np.ndarray) -> np.ndarray:
        return np.repeat(weight @ score[:, None] / weight.sum(axis=1)[:, None], len(grid), axis=1)

    scores, patients = np.array([0.0, 0.0, 1.0, 1.0]), np.array(["a", "a", "b", "b"])
    how = {"resamples": 400, "seed": 0}
    grid = np.array([0.0, 1.0])
    found = band(mean, TRUTH, scores, patients, grid, **how)
    # Draws are 0, 1/2, 1 with shares 1/4, 1/2, 1/4; of four rows alone they would lie closer.
    assert found is not None and (found.low, found.high) == ([0, 0], [1, 1])
    assert band(mean, TRUTH, scores, ["a"] * 4, grid, **how) is None
    assert band(mean, TRUTH, scores, patients, grid, resamples=0, seed=0) is None
    # Half of the draws hold one of the two patients alone, who is of one class.
    truth = np.array([True, True, False, False])
    none = band(sensitivity_at, truth, scores, patients, grid, **how)
    assert none is not None and none.low == none.high == [None, None]
