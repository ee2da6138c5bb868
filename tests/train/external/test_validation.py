import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from sonode.console import UserError
from tests.train.evidence.test_report import Page
from tests.train.synthetic_predictions import HEADS, SECRET, synthetic
from train.external.report import named, render
from train.external.validation import external
from train.fitting.predictions import Predictions
from train.measures.measure import Json

CHECKED = {"overlap_checked": True, "same_cohort": True, "equal_patient_ids": []}


def cohort(patients: int, seed: int, **columns: object) -> Predictions:
    found = synthetic(patients, seed)
    return dataclasses.replace(found, frame=found.frame.assign(**columns))


def flat(positive: int, patients: int = 100) -> Predictions:
    """One image a patient, all of probability .5; the first ones are positive."""
    found = cohort(patients, 0)
    frame = found.frame.drop_duplicates("patient_id").reset_index(drop=True)
    truth = pd.array(np.arange(patients) < positive, "boolean")
    frame = frame.assign(malignancy_truth=truth, malignancy_probability=0.5)
    return dataclasses.replace(found, frame=frame, heads=HEADS[:1])


def test_recalibration_by_hand() -> None:
    found = external(flat(50), {"b": flat(70)}, recalibrate=40, resamples=20)
    r = found["compared"]["malignancy"]["b"]["recalibration"]
    assert (r["patients"], r["images"], r["rest_patients"], r["rest_images"]) == (40, 40, 60, 60)
    before, shifted = r["after"]["none"], r["after"]["intercept"]
    rest = before["positive"] / 60
    taken = (70 - before["positive"]) / 40
    assert r["fewest_of_a_label"] == round(40 * min(taken, 1 - taken))
    # .5 is moved to the share of the patients taken, and judged on the others.
    assert shifted["intercept_added"] == pytest.approx(math.log(taken / (1 - taken)))
    assert before["ece"]["value"] == pytest.approx(abs(rest - 0.5))
    assert shifted["ece"]["value"] == pytest.approx(abs(rest - taken))
    assert "separate the classes, or are all equal" in r["after"]["intercept and slope"]["reason"]


@pytest.mark.parametrize(
    ("positive", "take", "reason"),
    [
        (70, 100, "100 labelled patients: none is left to measure"),
        (2, 50, "have the rarer label; a recalibration needs 5"),
    ],
)
def test_no_recalibration(positive: int, take: int, reason: str) -> None:
    found = external(flat(50), {"b": flat(positive)}, recalibrate=take, resamples=20)
    assert reason in found["compared"]["malignancy"]["b"]["recalibration"]["reason"]
    assert reason in render(
        {**found, "overlap_checked": True, "same_cohort": True, "equal_patient_ids": []}
    )


@pytest.fixture(scope="module")
def found() -> Json:
    other = cohort(90, 1, age=50.0, birads=pd.array(["4"] * len(synthetic(90, 1).frame), "string"))
    nothing = {"alnm_truth": pd.array([None] * len(other.frame), "boolean")}
    nothing["nodes_2_truth"] = nothing["alnm_truth"]
    other = dataclasses.replace(other, frame=other.frame.assign(**nothing))
    numbers = external(cohort(80, 0), {"b<r>a": other}, recalibrate=30, resamples=40)
    return {**numbers, **CHECKED, "overlap_checked": False}


def test_differences_are_external_minus_development(found: Json) -> None:
    ours, theirs = (
        found["cohorts"][name]["heads"]["malignancy"]["sets"]["all"]["patient"]["roc_auc"]["value"]
        for name in ("development", "b<r>a")
    )
    difference = found["compared"]["malignancy"]["b<r>a"]["differences"]["patient"]["roc_auc"]
    assert difference["value"] == pytest.approx(theirs - ours)
    assert difference["low"] < difference["value"] < difference["high"]


def test_a_head_without_labels_says_so_and_the_rest_is_made(found: Json) -> None:
    alnm = found["compared"]["alnm"]["b<r>a"]
    assert alnm["differences"]["image"]["roc_auc"]["reason"] == (
        "it is undefined in one of the two cohorts"
    )
    assert alnm["recalibration"]["reason"] == "0 labelled patients: none is left to measure"
    groups = found["cohorts"]["b<r>a"]["subgroups"]["alnm"]
    assert {it["source"] for it in groups} == {"no row has the label"}
    assert found["not_compared"] == ["subtype"]
    text = json.dumps(found, allow_nan=False)
    assert SECRET not in text


def test_the_page(found: Json) -> None:
    page = Page(render(found))
    text = " ".join(page.text.split())
    assert "b<r>a − development" in text and not page.all("r")
    assert "Overlap was not checked." in text
    assert "The recalibration took 30 patients" in text
    assert "By device" in text and "Age" in text
    assert "undefined: no row has a label" in text
    assert "subtype: luminal / HER2 / triple negative" in text and "HER2 against the rest" in text
    assert f"{found['method']['interaction_tests']} such tests are on this page" in text
    assert all(picture["alt"] for picture in page.all("img"))
    assert len(page.all("thead")) == len(page.all("table"))


@pytest.mark.parametrize(
    "given", [[], ["bra"], ["=x"], ["a=x", "a=y"], ["development=x"], ["a/b=x"], ["a="]]
)
def test_cohorts_are_named_once(given: list[str]) -> None:
    with pytest.raises(UserError, match="--cohort"):
        named(given)
    assert list(named(["bus-bra=x=y"])) == ["bus-bra"]
    with pytest.raises(UserError, match=r"--cohort b=x/\.\./x: is the folder of a; give each"):
        named(["a=x", "b=x/../x"])
