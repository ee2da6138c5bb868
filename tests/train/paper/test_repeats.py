import numpy as np
import pytest

from train.measures.measure import Resampling
from train.paper.repeats import TaskRows, differences, measured, roc_curve

NONE = Resampling(resamples=0, seed=0)
SOME = Resampling(resamples=200, seed=0)
TESTED = TaskRows(
    truth_N=np.array([True, True, False, False]),
    patient_N=np.array(["a", "b", "c", "d"], dtype=object),
)
# AUC of the first repeat: 4 of 4 pairs; of the second: 1 of 4.
SCORES = np.array([[0.9, 0.4], [0.8, 0.2], [0.3, 0.6], [0.1, 0.3]])


def test_mean_and_sd_over_repeats_by_hand() -> None:
    found = measured(TESTED, SCORES, NONE)
    assert found["roc_auc"]["value"] == pytest.approx((1 + 0.25) / 2)
    assert found["roc_auc"]["sd"] == pytest.approx(0.75 / np.sqrt(2))
    # Sensitivity 1 and 0; specificity 1 and 1/2.
    assert found["sensitivity"]["value"] == pytest.approx(0.5)
    assert found["specificity"]["value"] == pytest.approx(0.75)


def test_a_measure_that_one_repeat_lacks_is_undefined_with_a_reason() -> None:
    scores = np.array([[0.9, 0.4], [0.8, 0.2], [0.3, 0.4], [0.1, 0.3]])
    found = measured(TESTED, scores, NONE)["precision"]
    assert found["value"] is None and found["sd"] is None
    assert found["reason"] == "nothing is called positive in one of the repeats"
    empty = TaskRows(truth_N=np.empty(0, bool), patient_N=np.empty(0, object))
    assert measured(empty, np.empty((0, 2)), SOME)["roc_auc"]["value"] is None
    assert roc_curve(empty, np.empty((0, 2)), SOME) is None


def test_a_model_does_not_differ_from_itself_whatever_the_order_of_its_repeats() -> None:
    same = differences(TESTED, SCORES, SCORES[:, ::-1], SOME)["roc_auc"]
    assert same["value"] == pytest.approx(0)
    assert same["low"] is None or same["p_value"] == 1
    apart = differences(TESTED, SCORES, 1 - SCORES, NONE)["roc_auc"]
    assert apart["value"] == pytest.approx(0.25)


def test_the_curve_is_the_mean_of_the_repeats() -> None:
    curve = roc_curve(TESTED, SCORES, NONE)
    assert curve is not None and curve["band"] is None
    at = dict(zip(curve["false_positive_rate"], curve["true_positive_rate"], strict=True))
    # Of the second repeat: 0 up to a share of 1/2, then 1/2; interpolated to 1 at 1.
    assert at[0.4] == pytest.approx((1 + 0) / 2)
    assert at[1.0] == pytest.approx(1)
