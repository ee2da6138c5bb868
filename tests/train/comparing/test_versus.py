import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from sonode.console import UserError
from sonode.files.metrics import FORMAT
from sonode.files.parquet import ROI_COLUMNS
from train.comparing.auc_difference import Versus
from train.comparing.versus import show, versus, write
from train.measures.units import distinct_units

EVALUATION = {"format": FORMAT, "about": {}}
POINTS = {"threshold": 0.4, "operating_points": {"0.5": 0.5}}


def images(first: Path, second: Path, resamples: int) -> list[Versus]:
    return [it for it in versus(first, second, resamples=resamples).aucs if it.per == "image"]


def folder(path: Path, scores: np.ndarray, **changes: object) -> Path:
    n = len(scores)
    truth = pd.array([bool(i % 2) for i in range(n)], dtype="boolean")
    alnm = pd.array([bool(i % 4 == 1) if i % 2 else None for i in range(n)], dtype="boolean")
    frame = pd.DataFrame(
        {
            "patient_id": [f"p{i // 3}" for i in range(n)],
            "lesion_id": [f"l{i}" for i in range(n)],
            "image": [f"{i}.png" for i in range(n)],
            **{column: place for place, column in enumerate(ROI_COLUMNS)},
            "malignant": truth,
            "malignancy_truth": truth,
            "malignancy_probability": scores,
            "alnm_truth": alnm,
            "alnm_probability": scores[::-1],
            **changes,
        }
    )
    path.mkdir()
    frame.to_parquet(path / "predictions.parquet")
    labels = {"malignancy": ["benign", "malignant"], "alnm": ["no ALNM", "ALNM"]}
    heads = {
        name: {"labels": its, "target": name, "parent": parent, "given": None, **POINTS}
        for (name, its), parent in zip(labels.items(), (None, "malignancy"), strict=True)
    }
    (path / "metrics.json").write_text(json.dumps({**EVALUATION, "heads": heads}))
    return path


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    good = np.arange(60) % 2 + chance.normal(0, 0.7, 60)
    return expit(good), expit(good + chance.normal(0, 2.0, 60))


def test_aucs_and_their_difference(
    tmp_path: Path, scores: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (folder(tmp_path / name, s) for name, s in zip("ab", scores, strict=True))
    found = {(item.head, item.on): item for item in images(first, second, 500)}
    assert set(found) == {("malignancy", "all"), ("alnm", "all"), ("alnm", "malignancy positive")}
    item = found["malignancy", "all"]
    truth = np.arange(60) % 2
    assert item.first == pytest.approx(roc_auc_score(truth, scores[0]))
    assert item.second == pytest.approx(roc_auc_score(truth, scores[1]))
    assert item.difference == pytest.approx(item.first - item.second)  # type: ignore[operator]
    assert item.low is not None and item.high is not None and item.p_value is not None
    assert item.low < item.difference < item.high  # type: ignore[operator]
    assert item.low > 0 and item.p_value < 0.05
    assert (
        found["alnm", "malignancy positive"].n_images,
        found["alnm", "malignancy positive"].n_positive,
    ) == (30, 15)
    whole = versus(first, second, resamples=100)
    write(whole, tmp_path / "versus.json")
    written = json.loads((tmp_path / "versus.json").read_text())
    assert written["aucs"][0]["head"] == written["rates"][0]["head"] == "malignancy"
    # Three images a patient, each a lesion: per lesion is per image.
    assert [(it.head, it.per) for it in whole.aucs] == [
        *(("malignancy", "image"), ("malignancy", "patient")),
        *[("alnm", "image")] * 2,
        *[("alnm", "patient")] * 2,
    ]
    show(whole)
    told = capsys.readouterr().out
    assert "ROC AUC, patients drawn" in told and "² McNemar, rows independent" in told


def test_the_primary_set_is_known_by_parents_and_conditions_not_by_names(
    tmp_path: Path, scores: tuple[np.ndarray, np.ndarray]
) -> None:
    first, second = (folder(tmp_path / name, s) for name, s in zip("ab", scores, strict=True))
    names = {"malignancy": "tumour", "alnm": "axilla"}
    for it in (first, second):
        table = pd.read_parquet(it / "predictions.parquet").drop(columns="malignant")
        for old, new in names.items():
            table.columns = table.columns.str.replace(f"{old}_", f"{new}_")
        table.to_parquet(it / "predictions.parquet")
        heads = {
            "tumour": {"labels": ["no", "yes"], "target": "cancer", "parent": None, **POINTS},
            "axilla": {"labels": ["no", "yes"], "target": "alnm", "parent": "tumour", **POINTS},
        }
        (it / "metrics.json").write_text(json.dumps({**EVALUATION, "heads": heads}))
    found = {(item.head, item.on): item for item in images(first, second, 100)}
    assert set(found) == {("tumour", "all"), ("axilla", "all"), ("axilla", "tumour positive")}
    assert found["axilla", "tumour positive"].n_images == 30
    # A network for ALNM alone: by the label that its probability is given.
    for it in (first, second):
        table = pd.read_parquet(it / "predictions.parquet")
        table.assign(malignant=table["tumour_truth"]).to_parquet(it / "predictions.parquet")
        alone = {
            "labels": ["no", "yes"],
            "target": "alnm",
            "parent": None,
            "given": "malignant",
            **POINTS,
        }
        (it / "metrics.json").write_text(json.dumps({**EVALUATION, "heads": {"axilla": alone}}))
    found = {(item.head, item.on): item for item in images(first, second, 100)}
    assert found["axilla", "malignant positive"].n_images == 30
    for text, why in (
        *((it, "missing, or damaged") for it in ("{", "[]", "{}", "3")),
        ('{"format": 1}', "has format 1, and this"),
        (f'{{"format": {FORMAT}}}', "was not written by sonode"),
    ):
        (second / "metrics.json").write_text(text)
        with pytest.raises(UserError, match=rf"b/metrics\.json: {why}"):
            versus(first, second)
    (second / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"b/metrics\.json: missing, or damaged"):
        versus(first, second)


def test_lesions_patients_and_rates_by_hand(tmp_path: Path) -> None:
    truth = pd.array([True, True, True, False, False, False], dtype="boolean")
    facts = {
        "patient_id": ["a", "a", "b", "c", "c", "d"],
        "lesion_id": ["l", "l", "l", "l", "r", "l"],
        "malignant": truth,
        "malignancy_truth": truth,
        "alnm_truth": pd.array([None] * 6, dtype="boolean"),
    }
    first, second = (
        folder(tmp_path / name, np.array(p), **facts)
        for name, p in (
            ("a", [0.9, 0.3, 0.2, 0.1, 0.8, 0.3]),
            ("b", [0.6, 0.1, 0.9, 0.2, 0.4, 0.7]),
        )
    )
    found = versus(first, second, resamples=50)
    aucs = {it.per: it for it in found.aucs if (it.head, it.on) == ("malignancy", "all")}
    # Means: lesions a .6, b .2 over c .1 .8, d .3, and a .35, b .9 over .2 .4 .7;
    # patients a .6, b .2 over c .45, d .3, and a .35, b .9 over c .3, d .7.
    assert (aucs["lesion"].first, aucs["lesion"].second) == pytest.approx((3 / 6, 4 / 6))
    assert (aucs["patient"].first, aucs["patient"].second) == pytest.approx((2 / 4, 3 / 4))
    assert (aucs["lesion"].n, aucs["lesion"].n_positive, aucs["lesion"].n_images) == (5, 2, 6)
    rates = {
        (it["per"], it["point"], it["rate"]): it for it in found.rates if it["head"] == "malignancy"
    }
    # At .5: the images of a .9 .3 and b .2 against .6 .1 and .9.
    image = rates["image", "0.5", "sensitivity"]
    assert (image["first"], image["second"]) == pytest.approx((1 / 3, 2 / 3))
    assert (image["lost"], image["gained"], image["mcnemar_p"]) == (0, 1, 1)
    assert image["difference"]["value"] == pytest.approx(-1 / 3)
    patient = rates["patient", "0.5", "specificity"]  # c .45, d .3 against .3, .7
    assert (patient["rows"], patient["first"], patient["second"]) == (2, 1, 0.5)
    # At .4, where it is served: c .45 is called.
    assert rates["patient", "served", "specificity"]["first"] == 0.5
    highest = versus(first, second, resamples=50, aggregation="max")
    (c,) = (
        it
        for it in highest.rates
        if (it["head"], it["per"], it["point"], it["rate"])
        == ("malignancy", "patient", "0.5", "specificity")
    )
    assert c["first"] == 0.5  # c .8


def test_units_that_tell_nothing_more_are_left_out() -> None:
    rows = pd.DataFrame({"patient_id": list("aab"), "lesion_id": list("xyx")})
    assert distinct_units(rows) == ["image", "patient"]  # each lesion has one image
    rows["lesion_id"] = "x"
    assert distinct_units(rows) == ["image", "patient"]  # each patient has one lesion
    rows = pd.DataFrame({"patient_id": list("aaab"), "lesion_id": list("xxyx")})
    assert distinct_units(rows) == ["image", "lesion", "patient"]
    assert distinct_units(rows[2:]) == ["image"]
    assert distinct_units(rows[["patient_id"]]) == ["image", "patient"]


def test_a_model_against_itself(tmp_path: Path, scores: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = (folder(tmp_path / name, scores[0]) for name in "ab")
    item = images(first, second, 200)[0]
    assert item.difference == 0
    assert item.p_value == pytest.approx(1)
    assert item.delong_p is None
    assert (item.low, item.high, item.interval) == (0, 0, "same order of all 60 images")


def test_scores_that_rank_alike_may_differ_in_other_patients(tmp_path: Path) -> None:
    """Both separate the classes: 20 patients, 10 of either class."""
    truth = np.arange(60) % 2
    patients = [f"p{i % 20}" for i in range(60)]
    first, second = (
        folder(tmp_path / name, s, patient_id=patients)
        for name, s in (("a", 0.2 + 0.6 * truth), ("b", 0.4 + 0.2 * truth + np.arange(60) / 1000))
    )
    item = images(first, second, 200)[0]
    assert (item.first, item.second, item.difference) == (1, 1, 0)
    # Wilson's upper bound of 0 of 10: z^2 / (10 + z^2).
    bound = 1.959964**2 / (10 + 1.959964**2)
    assert (item.low, item.high) == pytest.approx((-bound, bound), abs=1e-6)
    assert item.interval == "Wilson, 10 patients"


def test_a_network_for_alnm_alone_against_one_that_knows_malignancy(
    tmp_path: Path, scores: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    """The one has no truth of the 30 benign lesions, for the other it follows."""
    alnm = pd.array([bool(i % 4 == 1) if i % 2 else False for i in range(60)], dtype="boolean")
    first = folder(tmp_path / "a", scores[0])
    second = folder(tmp_path / "b", scores[1], alnm_truth=alnm)
    found = {(item.head, item.on): item for item in images(first, second, 100)}
    truth, rows = np.arange(60) % 4 == 1, np.arange(60) % 2 == 1
    for on in ("all", "malignancy positive"):
        item = found["alnm", on]
        assert (item.n_images, item.n_positive) == (30, 15)
        assert item.first == pytest.approx(roc_auc_score(truth[rows], scores[0][::-1][rows]))
    said = "alnm: 30 rows with a truth in one of the two alone: not compared"
    assert said in capsys.readouterr().out


def test_one_class_is_undefined(tmp_path: Path, scores: tuple[np.ndarray, np.ndarray]) -> None:
    nothing = pd.array([None] * 60, dtype="boolean")
    first, second = (
        folder(tmp_path / name, s, alnm_truth=nothing) for name, s in zip("ab", scores, strict=True)
    )
    item = images(first, second, 200)[1]
    assert (item.n_images, item.first, item.difference, item.p_value) == (0, None, None, None)


def test_labels_of_a_categorical_head_against_the_rest(
    tmp_path: Path, scores: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    subtype = pd.array([None if i % 3 == 0 else "AB"[i % 3 - 1] for i in range(60)], "string")
    first, second = (
        folder(
            tmp_path / name,
            s,
            subtype_truth=subtype,
            subtype_probability_A=s,
            subtype_probability_B=1 - s,
            **({"nodes_2_truth": subtype == "A", "nodes_2_probability": s} if name == "a" else {}),
        )
        for name, s in zip("ab", scores, strict=True)
    )
    found = {(item.head, item.on): item for item in images(first, second, 200)}
    item = found["subtype=B", "all"]
    known = np.arange(60) % 3 > 0
    is_b = np.arange(60)[known] % 3 == 2
    assert (item.n_images, item.n_positive) == (40, 20)
    assert item.first == pytest.approx(roc_auc_score(is_b, -scores[0][known]))
    assert item.second == pytest.approx(roc_auc_score(is_b, -scores[1][known]))
    said = f"{first} alone has nodes_2: not compared"
    assert capsys.readouterr().out.splitlines() == [said]


def test_what_cannot_be_compared(tmp_path: Path, scores: tuple[np.ndarray, np.ndarray]) -> None:
    first = folder(tmp_path / "a", scores[0])
    with pytest.raises(UserError, match=r"no predictions\.parquet"):
        versus(first, tmp_path)
    with pytest.raises(UserError, match=r"different images \(60 and 59\)"):
        versus(first, folder(tmp_path / "b", scores[0][:59]))
    flipped = pd.array([not i % 2 for i in range(60)], dtype="boolean")
    with pytest.raises(UserError, match="malignancy: "):
        versus(first, folder(tmp_path / "c", scores[0], malignancy_truth=flipped))
    moved = np.full(60, 2)
    moved[:3] = 9
    other = folder(tmp_path / "d", scores[1], roi_x_max=moved)
    with pytest.raises(UserError, match=r"another RoI in 3 of 60 images; make both on the same"):
        versus(first, other)


@pytest.mark.parametrize("kind", ["torn", "text", "of another tool"])
def test_what_is_no_table_of_predictions(
    tmp_path: Path, scores: tuple[np.ndarray, np.ndarray], kind: str
) -> None:
    first, second = (folder(tmp_path / name, scores[0]) for name in "ab")
    table = second / "predictions.parquet"
    message = r"b/predictions\.parquet: not a Parquet table"
    if kind == "torn":
        table.write_bytes(table.read_bytes()[:-100])
    elif kind == "text":
        table.write_text("predictions")
    else:
        pd.DataFrame({"patient_id": ["p0"], "image": ["0.png"], "y": [1]}).to_parquet(table)
        message = r"b/predictions\.parquet: .*\(no column lesion_id, roi_x_min, "
    with pytest.raises(UserError, match=message) as caught:
        versus(first, second)
    assert "\n" not in str(caught.value)


def test_scores_that_are_none_and_rows_that_are_there_twice_are_refused(
    tmp_path: Path, scores: tuple[np.ndarray, np.ndarray]
) -> None:
    """Without its low positives, or with its best rows twice, a model looks better than it is."""
    first, second = (folder(tmp_path / name, s) for name, s in zip("ab", scores, strict=True))
    whole = pd.read_parquet(second / "predictions.parquet")
    p = whole["malignancy_probability"]
    for changed, why in (
        (whole.assign(malignancy_probability=p.where(p > 0.6)), r"malignancy: \d+ of 60 prob"),
        (whole.assign(malignancy_probability=2 * p), r"malignancy: \d+ of 60 probabilities"),
        (whole.assign(alnm_probability="high"), "alnm: 60 of 60 probabilities are not numbers"),
        (pd.concat([whole, whole[:9]]), "rows are there twice \\(9\\)"),
    ):
        changed.to_parquet(second / "predictions.parquet")
        with pytest.raises(UserError, match=rf"b/predictions\.parquet: {why}"):
            versus(first, second)
