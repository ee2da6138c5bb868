import numpy as np
import pytest

from train.measures.measure import Resampling
from train.repeats.measured import TaskRows, differences, measured, roc_curve

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
    # AUCs of 1, 1/4 and 3/4, and sensitivities whose sum depends on the order as floats.
    scores = np.hstack([SCORES, [[0.7], [0.4], [0.5], [0.2]]])
    for measure, same in differences(TESTED, scores, scores[:, ::-1], SOME).items():
        assert same["value"] == 0, measure
        assert same["p_value"] in (1, None), measure
    apart = differences(TESTED, SCORES, 1 - SCORES, NONE)["roc_auc"]
    assert apart["value"] == pytest.approx(0.25)


def test_all_right_in_each_repeat_has_wilsons_interval_of_the_patients() -> None:
    patient_N = np.array(["a", "a", "b", "c"], dtype=object)
    on = TaskRows(truth_N=np.array([True, True, True, False]), patient_N=patient_N)
    found = measured(on, np.array([[0.9, 0.6], [0.8, 0.7], [0.9, 0.9], [0.3, 0.6]]), SOME)
    its = found["sensitivity"]
    # Of two positive patients: 2 / (2 + z^2).
    assert (its["value"], its["interval"]) == (1, "Wilson, 2 patients")
    assert (its["low"], its["high"]) == pytest.approx((2 / (2 + 1.959964**2), 1), abs=1e-6)
    assert found["specificity"]["value"] == 0.5 and "interval" not in found["specificity"]


def test_repeats_that_call_other_rows_have_no_interval_of_no_patient() -> None:
    on = TaskRows(truth_N=np.array([True, True, False]), patient_N=np.array(list("abc"), object))
    its = measured(on, np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.1]]), SOME)["precision"]
    assert (its["value"], its["low"]) == (1, None)
    assert "interval" not in its and "draws are undefined" in its["no_interval"]


def test_two_positive_patients_show_no_difference_of_sensitivity() -> None:
    """Both are lost by the second model, in every draw; negatives tell nothing of sensitivity."""
    patients, seeds = 60, 2
    truth_N = np.arange(patients) % 30 == 0  # two of them
    on = TaskRows(truth_N=np.repeat(truth_N, 9), patient_N=np.repeat(np.arange(patients), 9))
    first_NR = np.where(np.repeat(truth_N, 9), 0.9, 0.8)[:, None] * np.ones(seeds)
    many = TaskRows(truth_N=np.ones(540, bool), patient_N=on.patient_N)
    assert differences(many, first_NR, 1 - first_NR, SOME)["sensitivity"]["p_value"] == 2 / 201
    two = TaskRows(truth_N=np.ones(18, bool), patient_N=np.repeat([0, 1], 9))
    assert differences(two, first_NR[:18], 0 * first_NR[:18], SOME)["sensitivity"]["p_value"] == 0.5
    found = differences(on, first_NR, 0 * first_NR, Resampling(resamples=200, seed=0))
    assert found["specificity"]["value"] == -1 and found["specificity"]["p_value"] == 2 / 201
    # 13 % of the draws have no positive patient: no interval, and no p.
    assert found["sensitivity"]["value"] == 1 and found["sensitivity"]["p_value"] is None


def test_the_curve_is_the_mean_of_the_repeats() -> None:
    curve = roc_curve(TESTED, SCORES, NONE)
    assert curve is not None and curve["band"] is None
    at = dict(zip(curve["false_positive_rate"], curve["true_positive_rate"], strict=True))
    # Of the second repeat: 0 up to a share of 1/2, then 1/2; interpolated to 1 at 1.
    assert at[0.4] == pytest.approx((1 + 0) / 2)
    assert at[1.0] == pytest.approx(1)
