import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sonode.console import UserError
from tests.train.evidence.test_report import Page
from tests.train.synthetic_predictions import HEADS, SECRET, synthetic
from train.external import report
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
    """70 of 100 are positive. Of the choices of 99 patients 30 leave a negative one, 70 another."""
    r = external(flat(50), {"b": flat(70)}, recalibrate=99, resamples=20)
    r = r["compared"]["malignancy"]["b"]["recalibration"]
    assert (r["patients"], r["rest_patients"], r["too_few"]) == (99, 1, 0)
    before, shifted, both = (r["after"][it] for it in ("none", "intercept", "intercept and slope"))
    assert [before["ece"][it] for it in ("value", "low", "high")] == pytest.approx([0.5] * 3)
    # .5 is moved to the share of the patients taken, and judged on the one that is left.
    logits = math.log(70 / 29), math.log(69 / 30)
    low, high = shifted["intercept_added"]["low"], shifted["intercept_added"]["high"]
    assert (high, low) == pytest.approx(logits)
    share = (shifted["intercept_added"]["value"] - low) / (high - low)  # of a negative one left
    assert share == pytest.approx(0.3, abs=0.12)
    assert shifted["ece"]["value"] == pytest.approx(share * 70 / 99 + (1 - share) * 30 / 99)
    # Equal scores show no slope: it stays 1; the prior holds the intercept nearer to 0.
    assert both["slope_times"]["value"] == pytest.approx(1)
    assert 0.8 < both["intercept_added"]["value"] / shifted["intercept_added"]["value"] < 1
    assert "all equal" in both["calibration_slope"]["reason"] and not both["calibration_curve"]


def test_a_recalibration_on_all_but_few_finds_the_line() -> None:
    """The logits are a third of the true ones, and too high by .5."""
    generator = np.random.default_rng(0)
    other = flat(1, 3000)
    logit = generator.normal(0, 2, 3000)
    truth = pd.array(generator.random(3000) < 1 / (1 + np.exp(-logit)), "boolean")
    p = 1 / (1 + np.exp(-(logit / 3 + 0.5)))
    frame = other.frame.assign(malignancy_truth=truth, malignancy_probability=p)
    other = dataclasses.replace(other, frame=frame)
    found = external(flat(50), {"b": other}, recalibrate=1500, resamples=20)
    after = found["compared"]["malignancy"]["b"]["recalibration"]["after"]
    before, both = after["none"], after["intercept and slope"]
    assert both["slope_times"]["value"] == pytest.approx(3, abs=0.2)
    assert both["intercept_added"]["value"] == pytest.approx(-1.5, abs=0.2)
    assert before["calibration_slope"]["value"] == pytest.approx(3, abs=0.2)
    assert both["calibration_slope"]["value"] == pytest.approx(1, abs=0.1)
    assert before["ece"]["value"] > 0.1
    assert both["ece"]["value"] == pytest.approx(both["ece"]["if_right"]["mean"], abs=0.01)
    assert both["ece"]["low"] < both["ece"]["value"] < both["ece"]["high"]


@pytest.mark.parametrize(
    ("positive", "take", "reason"),
    [
        (70, 100, "100 labelled patients: none is left to measure"),
        (70, 120, "100 labelled patients: none is left to measure"),
        (4, 50, "needs 5 patients of each label, and in none of 200 choices 50 patients have them"),
    ],
)
def test_no_recalibration(
    positive: int, take: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = external(flat(50), {"b": flat(positive)}, recalibrate=take, resamples=20)
    recalibration = found["compared"]["malignancy"]["b"]["recalibration"]
    assert reason in recalibration["reason"]
    report.show(found)
    said = f"warning: malignancy in b is not recalibrated: {recalibration['reason']}\n"
    assert capsys.readouterr().err == said
    assert recalibration.get("rest_patients") == (50 if take == 50 else None)
    assert reason in render({**found, **CHECKED})


def test_choices_with_too_few_of_a_label_are_left_out_and_counted() -> None:
    # Of 10 positive patients among 100, 50 have 5 or more in 63 % of choices (hypergeometric).
    found = external(flat(50), {"b": flat(10)}, recalibrate=50, resamples=20)
    left_out = found["compared"]["malignancy"]["b"]["recalibration"]["too_few"]
    assert left_out == pytest.approx(200 * 0.37, abs=30)
    assert f"{left_out} of the 200 choices are left out" in render({**found, **CHECKED})


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


def test_rates_of_1_in_both_cohorts_differ_by_no_more_than_newcombe_says() -> None:
    """Wilson's bounds by hand: of n in n it begins at n / (n + 1.96^2)."""
    compared = external(flat(50), {"b": flat(70)}, recalibrate=20, resamples=20)["compared"]
    rates = compared["malignancy"]["b"]["differences"]["image"]
    z = 1.959964**2
    below, above = (1 - n / (n + z) for n in (70, 50))
    assert rates["sensitivity"]["value"] == 0
    assert rates["sensitivity"]["low"] == pytest.approx(-below)
    assert rates["sensitivity"]["high"] == pytest.approx(above)
    assert rates["sensitivity"]["interval"] == "Newcombe, 70 and 50 patients"
    below, above = (1 - n / (n + z) for n in (50, 30))
    assert rates["specificity"]["low"] == pytest.approx(-below)
    assert rates["specificity"]["high"] == pytest.approx(above)
    assert rates["roc_auc"]["no_interval"] == "all draws are equal"


def test_a_rate_of_1_in_one_cohort_alone_is_no_certain_difference() -> None:
    """All 5 positive patients are found there, 45 of 50 here: Fisher's exact p is 1."""
    ours, theirs = flat(50), flat(5, 40)
    p = [np.where(its.frame.index < n, 0.9, 0.1) for its, n in ((ours, 45), (theirs, 5))]
    ours, theirs = (
        dataclasses.replace(its, frame=its.frame.assign(malignancy_probability=score))
        for its, score in zip((ours, theirs), p, strict=True)
    )
    compared = external(ours, {"b": theirs}, recalibrate=20, resamples=200)["compared"]
    rates = compared["malignancy"]["b"]["differences"]["patient"]
    found = rates["sensitivity"]
    assert found["value"] == pytest.approx(0.1) and found["p_value"] is None
    # Wilson's lower end of 5 in 5 is 5 / (5 + 1.96^2), so it may be lower by .43 than 1.
    assert found["low"] < 0.1 - (1 - 5 / (5 + 1.959964**2))
    assert 0.1 < found["high"] < 0.25
    assert found["interval"] == "Newcombe, 5 and 50 patients"
    assert rates["roc_auc"]["no_interval"] == "all draws of one cohort are equal"
    assert rates["roc_auc"]["p_value"] is None


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
    assert "200 times 30 patients were chosen by chance (seed 0)" in text
    assert "By device" in text and "Age" in text
    assert "undefined: no row has a label" in text
    assert "subtype: luminal / HER2 / triple negative" in text and "HER2 against the rest" in text
    assert f"{found['method']['interaction_tests']} such tests are on this page" in text
    assert all(picture["alt"] for picture in page.all("img"))
    assert len(page.all("thead")) == len(page.all("table"))


@pytest.mark.parametrize(
    "given", [[], ["bra"], ["=x"], ["a=x", "a=y"], ["development=x"], ["a/b=x"], ["a="]]
)
def test_cohorts_are_named_once(given: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cohort"):
        named(given)
    assert list(named(["bus-bra=x=y"])) == ["bus-bra"]
    with pytest.raises(UserError, match=r"--cohort b=x/\.\./x: is the folder of a; give each"):
        named(["a=x", "b=x/../x"])
    with pytest.raises(UserError, match=r"no-other"):  # before the development part is scored
        report.run(
            *(tmp_path / "no-checkpoint", tmp_path / "no-own", tmp_path / "out"),
            {"b": tmp_path / "no-other"},
            recalibrate=50,
            resamples=20,
            seed=0,
            aggregation="mean",
        )
