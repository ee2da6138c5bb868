import pandas as pd
import pytest

from model_def.heads import HeadSpec
from tests.train.synthetic_predictions import ROI
from train.evidence.report import render
from train.fitting.predictions import Predictions
from train.measures.evaluate import evaluate

HEAD = HeadSpec(name="malignancy", target="malignant", labels=("benign", "malignant"))


def predictions(folds: list[str], truth: list[bool | None]) -> Predictions:
    """Eight images of eight patients."""
    frame = pd.DataFrame(
        {
            "patient_id": [f"p{number}" for number in range(8)],
            "lesion_id": "l",
            **ROI,
            "image": [f"{number}.png" for number in range(8)],
            "device": "A",
            "malignancy_truth": pd.array(truth, dtype="boolean"),
            "malignancy_probability": [0.1, 0.3, 0.2, 0.4, 0.7, 0.6, 0.9, 0.8],
            "fold": folds,
        }
    )
    about = {"part": "out-of-fold", "statement": "two networks, each of the others"}
    return Predictions(frame=frame, heads=(HEAD,), hierarchy="independent", about=about)


def test_each_fold_the_pooled_figure_and_the_mean_by_hand() -> None:
    # Fold 2: .1 .2 benign, .3 .4 malignant. Fold 10: .7 .9 benign, .6 .8 malignant: 1 of 4 pairs.
    folds = ["2"] * 4 + ["10"] * 4
    metrics = evaluate(
        predictions(folds, [False, True, False, True, False, True, False, True]), resamples=50
    )
    for unit in ("image", "patient"):
        found = metrics["folds"]["malignancy"][unit]
        assert [its["fold"] for its in found["folds"]] == ["2", "10"]
        assert [its["roc_auc"]["value"] for its in found["folds"]] == [1, 0.25]
        assert [its["positive"] for its in found["folds"]] == [2, 2]
        assert found["mean"]["value"] == pytest.approx(0.625)
        # Of all 16 pairs 9 are in order: the two malignant ones of fold 2 are below its others.
        pooled = metrics["heads"]["malignancy"]["sets"]["all"][unit]["roc_auc"]
        assert pooled["value"] == pytest.approx(9 / 16)
    # Where each fold separates the classes, the folds show nothing of how far 1 may be off.
    equal = predictions(folds, [False, False, True, True, False, False, True, True])
    equal.frame["malignancy_probability"] = [0.1, 0.2, 0.3, 0.4] * 2
    perfect = evaluate(equal, resamples=50)
    mean = perfect["folds"]["malignancy"]["patient"]["mean"]
    assert (mean["value"], mean["low"], mean["high"]) == (1, None, None)
    assert "no interval: all folds are equal" in render(perfect)
    page = render(metrics)
    assert "By fold" in page
    assert "mean of folds" in page
    assert "two networks, each of the others" in page


def test_the_mean_is_undefined_where_a_fold_has_one_class() -> None:
    folds = ["1"] * 4 + ["2"] * 4
    truth = [False, True, False, True, True, True, True, True]
    metrics = evaluate(predictions(folds, truth), resamples=0)
    mean = metrics["folds"]["malignancy"]["patient"]["mean"]
    assert (mean["value"], mean["reason"]) == (None, "undefined in fold 2")
    assert "undefined in fold 2" in render(metrics)
    # A fold without any label of the head is listed, and leaves the mean undefined, too.
    unlabelled = predictions(["1", "3"] * 2 + ["2"] * 4, [None if it else False for it in truth])
    by_fold = evaluate(unlabelled, resamples=0)["folds"]["malignancy"]["image"]
    assert [(its["fold"], its["rows"]) for its in by_fold["folds"]] == [
        ("1", 2),
        ("2", 0),
        ("3", 0),
    ]
    assert by_fold["folds"][1]["roc_auc"]["reason"] == "no row has a label"
    frame = predictions(folds, truth).frame.drop(columns="fold")
    alone = Predictions(frame=frame, heads=(HEAD,), hierarchy="independent", about={})
    assert evaluate(alone, resamples=0)["folds"] == {}
