"""Coverage, uncertain results and flags of a few patients, counted by hand."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from model_def.heads import HeadSpec
from model_def.label_sets import LabelSets
from tests.train.synthetic_predictions import ROI
from train.evidence.report import render
from train.fitting.predictions import Predictions
from train.measures.evaluate import evaluate
from train.measures.measure import Resampling
from train.measures.uncertainty import measure_uncertainty

B, M, BOTH = ["benign"], ["malignant"], ["benign", "malignant"]
NO, YES = ["no ALNM"], ["ALNM"]
LIMIT = {"limit": 2.0, "false_alarms": 0.05, "patients": 30, "why": None}


def promise(labels: tuple[str, str], given: str | None, **more: Any) -> LabelSets:
    patients = dict(zip(labels, (20, 10), strict=True))
    return LabelSets(**{"level": 0.9, "given": given, "patients": patients, **more})


@pytest.fixture
def predictions(heads: tuple[HeadSpec, ...]) -> Predictions:
    """p1 has two images, the others one; one result is wrong and certain, and one uncertain."""
    names = [head.labels for head in heads]
    bounds = [dict.fromkeys(labels, 0.5) for labels in names]
    sets = [
        promise(names[0], None, least=bounds[0]),
        promise(names[1], "malignant", least=bounds[1]),
    ]
    sure = [
        head.model_copy(update={"label_sets": its}) for head, its in zip(heads, sets, strict=True)
    ]
    frame = pd.DataFrame(
        {
            "patient_id": ["p1", "p1", "p2", "p3", "p4"],
            "lesion_id": ["l1", "l1", "l2", "l3", "l4"],
            "image": list("abcde"),
            **ROI,
            "device": None,
            "malignancy_truth": pd.array([False, False, False, True, True], "boolean"),
            "malignancy_probability": [0.1, 0.9, 0.2, 0.6, 0.8],
            "malignancy_uncertain": [False, False, False, True, False],
            "malignancy_label_set": [B, M, B, BOTH, M],
            "alnm_truth": pd.array([False, False, False, False, True], "boolean"),
            "alnm_probability": [0.1, 0.2, 0.3, 0.4, 0.45],
            "alnm_uncertain": [False, False, False, False, False],
            "alnm_label_set": [NO, YES, NO, NO, NO],
            "out_of_distribution": [True, False, False, False, False],
        }
    )
    about = {"part": "test", "model": {"out_of_distribution": LIMIT}}
    return Predictions(frame=frame, heads=tuple(sure), hierarchy="independent", about=about)


def test_shares_are_means_over_patients(predictions: Predictions) -> None:
    found = measure_uncertainty(predictions, Resampling(resamples=50, seed=0))
    assert found is not None
    head = found["heads"]["malignancy"]
    benign, malignant = head["labels"]["benign"], head["labels"]["malignant"]
    assert benign["covered"]["value"] == 0.75  # of images it is 2 / 3
    assert benign["certain_and_wrong"]["value"] == 0.25
    assert benign["uncertain"]["value"] == 0
    assert benign["uncertain"]["interval"] == "Wilson, 2 patients"
    assert (benign["rows"], benign["patients"]) == (3, 2)
    assert malignant["covered"]["value"] == 1
    assert malignant["uncertain"]["value"] == 0.5
    assert head["uncertain"]["value"] == 0.25
    # .6 and .8 against .1, .9 and .2; without the uncertain .6 the .8 alone.
    assert head["roc_auc"]["all"]["value"] == pytest.approx(4 / 6)
    assert head["roc_auc"]["certain"]["value"] == pytest.approx(2 / 3)
    assert head["roc_auc"]["certain"]["rows"] == 4
    assert found["out_of_distribution"]["flagged"]["value"] == 0.125


def test_a_promise_is_judged_on_the_lesions_that_it_is_about(predictions: Predictions) -> None:
    found = measure_uncertainty(predictions, Resampling(resamples=50, seed=0))
    assert found is not None
    alnm = found["heads"]["alnm"]
    assert (alnm["rows"], alnm["given"]) == (2, "malignant")
    assert alnm["labels"]["no ALNM"]["covered"]["value"] == 1
    assert alnm["labels"]["ALNM"]["covered"]["value"] == 0
    assert alnm["labels"]["ALNM"]["certain_and_wrong"]["value"] == 1


def test_spread_is_judged_by_how_well_it_tells_wrong_labels(predictions: Predictions) -> None:
    frame = predictions.frame.assign(malignancy_spread=[0.01, 0.3, 0.2, 0.04, 0.02])
    several = replace(predictions, frame=frame)
    found = measure_uncertainty(several, Resampling(resamples=50, seed=0))
    assert found is not None
    assert list(found["spread"]) == ["malignancy"]
    its = found["spread"]["malignancy"]
    assert (its["rows"], its["wrong"]) == (5, 1)  # .9 of a benign lesion
    assert its["median"] == {"right": pytest.approx(0.03), "wrong": 0.3}
    auc = {name: its["roc_auc_of_wrong"][name]["value"] for name in its["roc_auc_of_wrong"]}
    # .9 is as far from .5 as .1 is, and farther than the other three.
    assert auc == {"spread": 1.0, "near_threshold": 0.125, "uncertain": 0.375}
    page = render(evaluate(several, resamples=50))
    assert "Spread of the members, and wrong labels" in page
    assert "Spread of the members" not in render(evaluate(predictions, resamples=50))


def test_the_page_says_it(predictions: Predictions, heads: tuple[HeadSpec, ...]) -> None:
    metrics = evaluate(predictions, resamples=50)
    page = render(metrics)
    assert "found on these same predictions" not in page
    folds = {**metrics, "about": {**metrics["about"], "part": "out-of-fold"}}
    assert "found on these same predictions" in render(folds)
    assert "Uncertain results and unlike images" in page
    assert "In the set (promised: 0.9)" in page
    assert "flagged 0.125" in page
    refused = promise(heads[1].labels, "malignant", least=None, why="too few <patients>")
    none = Predictions(
        frame=predictions.frame,
        heads=(heads[0], heads[1].model_copy(update={"label_sets": refused})),
        hierarchy="independent",
        about={"part": "test", "model": {"out_of_distribution": LIMIT | {"limit": None}}},
    )
    page = render(evaluate(none, resamples=50))
    assert "no label sets: too few &lt;patients&gt;." in page
    assert "no flag: " in page


def test_a_model_without_either_has_no_section(
    predictions: Predictions, heads: tuple[HeadSpec, ...]
) -> None:
    earlier = Predictions(
        frame=predictions.frame, heads=heads, hierarchy="independent", about={"part": "test"}
    )
    metrics = evaluate(earlier, resamples=50)
    assert metrics["uncertainty"] is None
    assert "Uncertain results" not in render(metrics)
