import numpy as np
import pandas as pd
import pytest

from tests.train.synthetic_predictions import HEADS
from train.measures.measure import Resampling
from train.measures.subgroups import adjust, subgroups, variables

HOW = Resampling(resamples=20, seed=0)


def frame(**columns: object) -> pd.DataFrame:
    n = 24
    return pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(n)],
            "lesion_id": "l",
            "roi_x_min": 0,
            "roi_y_min": 0,
            "roi_x_max": np.arange(1, n + 1),
            "roi_y_max": 1,
            "device": pd.array([None] * n, "string"),
            **columns,
        }
    )


def test_groups_by_hand() -> None:
    histology = ["cyst"] * 11 + ["lipoma"] * 2 + ["IDC"] * 10 + [None]
    found = variables(
        frame(
            age=[39.5, 40, 49, 70] * 5 + [None] * 4,
            BI_RADS=["4"] * 12 + ["5"] * 12,
            histology=pd.array(histology, "string"),
        )
    )
    age = found["age"]
    assert age.group is not None and age.group[:4].tolist() == [
        *("under 40", "40 to 49", "40 to 49", "70 or more")
    ]
    assert age.group[20:].isna().all()
    assert age.order == ["under 40", "40 to 49", "50 to 59", "60 to 69", "70 or more"]
    assert found["device"].group is None
    assert found["device"].source == "column device is empty"
    assert found["BI-RADS"].order == ["4", "5"]
    assert found["histology"].order == ["IDC", "cyst", "lipoma"]  # one small group stays itself
    # Sides of 1 to 24: a third is up to 8, so the next begins at 9.
    size = found["lesion size"]
    assert size.group is not None and size.group.value_counts().tolist() == [8, 8, 8]
    assert size.source == "longer side of the box, pixels, in thirds of the rows"
    assert size.order == ["under 9 pixels", "9 to under 17 pixels", "17 pixels or more"]
    by_size = variables(frame(size_mm=np.arange(24.0)))["lesion size"]
    assert by_size.order[0].endswith(" mm")
    assert "no such column" in variables(frame())["age"].source


def test_small_groups_are_put_together() -> None:
    kinds = ["cyst"] * 12 + ["lipoma"] * 7 + ["scar"] * 5
    groups = variables(frame(histology=pd.array(kinds, "string")))["histology"]
    assert groups.order == ["cyst", "2 others, each of fewer than 10 patients"]
    assert groups.group is not None
    assert (groups.group == groups.order[1]).sum() == 12


def test_figures_and_tests_by_hand() -> None:
    """Both devices have six patients of each class; the one ranks all right, the other none."""
    truth = np.tile([True, False], 12)
    device = np.repeat(["A", "B"], 12)
    rows = frame(
        device=pd.array(device, "string"),
        malignancy_truth=pd.array(truth, "boolean"),
        malignancy_probability=np.where(truth == (device == "A"), 0.9, 0.1),
    )
    found = {it["variable"]: it for it in subgroups(rows, HEADS[0], "mean", HOW)}
    by_device = found["device"]
    a, b = by_device["groups"]
    assert (a["group"], a["rows"], a["positive"]) == ("A", 12, 6)
    assert (a["roc_auc"]["value"], b["roc_auc"]["value"]) == (1, 0)
    assert (a["sensitivity"]["value"], b["sensitivity"]["value"]) == (1, 0)
    # Of the 924 ways to choose 6 of 12 two are as far apart; for the AUC in both classes at once.
    assert by_device["tests"]["sensitivity"]["p"] == pytest.approx(2 / 924, abs=0.003)
    assert by_device["tests"]["roc_auc"]["p"] <= 0.001
    # Thirds of eight: four of either class are too few.
    size = found["lesion size"]["tests"]["specificity"]
    assert size["p"] is None
    assert size["reason"] == "fewer than two groups have 5 patients with a negative label"
    assert found["age"]["groups"] == [] and found["age"]["tests"] == {}
    assert adjust([{"malignancy": list(found.values())}]) == 3
    smallest = by_device["tests"]["roc_auc"]
    assert smallest["p_holm"] == pytest.approx(3 * smallest["p"])


def test_a_patient_in_two_groups_is_in_no_test() -> None:
    truth = np.tile([True, False], 12)
    rows = frame(
        device=pd.array(np.repeat(["A", "B"], 12), "string"),
        malignancy_truth=pd.array(truth, "boolean"),
        malignancy_probability=np.linspace(0, 1, 24),
    )
    rows.loc[12:15, "patient_id"] = ["p0", "p1", "p2", "p3"]
    found = subgroups(rows, HEADS[0], "mean", HOW)[0]
    assert [it["rows"] for it in found["groups"]] == [12, 12]
    assert found["left_out_patients"] == 4
    assert found["tests"]["sensitivity"]["p"] is None  # four positive patients are left of each
