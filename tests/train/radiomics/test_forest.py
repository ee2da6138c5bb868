from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sonode.files.parquet import ROI_COLUMNS

pytest.importorskip("boruta", reason="the extra `radiomics` is not installed")

from sklearn.metrics import roc_auc_score

from sonode.console import UserError
from train.cohorts.cohort import Cohort
from train.cohorts.split import part_of
from train.radiomics import forest
from train.radiomics.features import feature_names
from train.radiomics.forest import fit, fit_label, in_test_part, predict

TELLING = ["original_firstorder_Mean", "original_glcm_Contrast"]  # one for each label


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rounds and trees than a study needs; enough for features that tell all."""
    monkeypatch.setitem(forest.BORUTA, "max_iter", 15)
    monkeypatch.setitem(forest.BORUTA, "n_estimators", 30)
    monkeypatch.setitem(forest.FOREST, "n_estimators", 50)


def made(**labels: list[Any]) -> tuple[Cohort, pd.DataFrame]:
    """A cohort of one row a patient without images, and features of which two carry its labels."""
    n = len(labels["malignant"])
    table = pd.DataFrame(
        {
            "patient_id": [f"p{index}" for index in range(n)],
            "lesion_id": [f"p{index}_0" for index in range(n)],
            "image": "none.png",
            **dict.fromkeys(ROI_COLUMNS, 0),
            "malignant": pd.array(labels["malignant"], "boolean[pyarrow]"),
            "alnm": pd.array(labels.get("alnm", [None] * n), "boolean[pyarrow]"),
            "n_nodes": pd.array(labels.get("n_nodes", [None] * n), "int32[pyarrow]"),
            "device": pd.array([None] * n, "string[pyarrow]"),
            "pixels_sha256": [str(index) for index in range(n)],
        },
        index=range(n),
    )
    rng = np.random.default_rng(0)
    names = feature_names("102")
    features = pd.DataFrame(rng.normal(size=(n, len(names))), columns=names)
    for name, column in zip(TELLING, ("malignant", "alnm"), strict=True):
        features[name] += 4 * table[column].fillna(False).to_numpy(dtype=float)
    return Cohort(name="made", synthetic=True, folder=Path("made"), table=table), features


@pytest.fixture(scope="module")
def both() -> tuple[Cohort, pd.DataFrame]:
    """120 patients: half malignant, a third of those with nodes; some labels missing."""
    malignant: list[bool | None] = [index % 2 == 0 for index in range(120)]
    alnm: list[bool | None] = [index % 6 == 0 for index in range(120)]
    malignant[1] = malignant[3] = None
    alnm[6] = alnm[2] = None
    return made(malignant=malignant, alnm=alnm)


def test_boruta_finds_what_separates_and_the_forest_uses_it(
    both: tuple[Cohort, pd.DataFrame],
) -> None:
    cohort, features = both
    fitted = fit(cohort, features, split_seed=0, seed=0, feature_set="93")
    assert fitted["alnm"].selected == TELLING[1:]
    # Who has nodes has a malignant lesion: the feature of ALNM may tell malignancy too.
    assert fitted["malignancy"].selected in (TELLING, TELLING[:1])
    learned = [part_of(patient, 0) != "test" for patient in cohort.table["patient_id"]]
    table = cohort.table[learned]
    known = table["malignant"].dropna()
    assert (fitted["malignancy"].n_images, fitted["malignancy"].n_positive) == (
        len(known),
        known.sum(),
    )
    on = table[table["malignant"].fillna(False).astype(bool)]["alnm"].dropna()
    assert 0 < len(on) < len(known)
    assert (fitted["alnm"].n_images, fitted["alnm"].n_positive) == (len(on), on.sum())
    for found in fitted.values():
        assert found.forest.get_params()["max_depth"] == 300

    predictions, _ = predict(cohort, features, fitted, split_seed=0)
    assert list(predictions["patient_id"]) == [
        patient for patient in cohort.table["patient_id"] if part_of(patient, 0) == "test"
    ]
    known = predictions["malignancy_truth"].notna()
    truth = predictions.loc[known, "malignancy_truth"].astype(bool)
    assert roc_auc_score(truth, predictions.loc[known, "malignancy_probability"]) > 0.95


def test_nothing_of_the_test_part_is_learned(both: tuple[Cohort, pd.DataFrame]) -> None:
    cohort, features = both
    tested = in_test_part(cohort, 0)
    assert 0 < tested.sum() < len(tested)
    other, garbage = cohort.table.copy(), features.copy()
    other.loc[tested, "malignant"] = ~other.loc[tested, "malignant"]
    garbage.loc[tested] = 1e6
    spoilt = Cohort(name="spoilt", synthetic=True, folder=cohort.folder, table=other)
    models = [
        fit(its, values, split_seed=0, seed=3, feature_set="93")
        for its, values in ((cohort, features), (spoilt, garbage))
    ]
    for name in ("malignancy", "alnm"):
        clean, dirty = (model[name] for model in models)
        assert clean.selected == dirty.selected
        assert (clean.probability(features) == dirty.probability(features)).all()


def test_the_seed_decides(both: tuple[Cohort, pd.DataFrame]) -> None:
    _, features = both
    chosen, truth = features[feature_names("93")[:12]], np.arange(120) % 2 == 0
    first, again, other = (fit_label(chosen, truth, seed).probability(chosen) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_noise_alone_is_reported_and_all_features_are_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cohort, features = made(malignant=[index % 2 == 0 for index in range(60)])
    features[TELLING[0]] = 0.0
    found = fit(cohort, features, split_seed=0, seed=0, feature_set="102")["malignancy"]
    assert found.selected is None
    assert found.used == feature_names("102")
    said = capsys.readouterr().out
    assert "malignancy: Boruta confirmed no feature; the forest uses all 102" in said


def test_a_label_without_values_is_left_out_and_stays_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cohort, features = made(malignant=[index % 2 == 0 for index in range(40)])
    fitted = fit(cohort, features, split_seed=0, seed=0, feature_set="93")
    assert list(fitted) == ["malignancy"]
    assert "alnm: no label outside the test part; left out" in capsys.readouterr().out
    predictions, heads = predict(cohort, features, fitted, split_seed=0)
    assert [head.name for head in heads] == ["malignancy"]
    assert "alnm_truth" not in predictions
    assert predictions["alnm"].isna().all()
    assert predictions["malignancy_probability"].between(0, 1).all()


@pytest.mark.parametrize(
    ("malignant", "message"),
    [
        ([True] * 30, "no label of two classes outside the test part"),
        ([None] * 30, "no label of two classes outside the test part"),
        ([True], "no patient falls into"),
    ],
)
def test_what_cannot_be_trained_is_refused(malignant: list[bool | None], message: str) -> None:
    cohort, features = made(malignant=malignant)
    with pytest.raises(UserError, match=message) as caught:
        fit(cohort, features, split_seed=0, seed=0, feature_set="93")
    assert "data.split_seed 0" in str(caught.value)


def test_malignant_lesions_alone_are_enough_for_alnm(capsys: pytest.CaptureFixture[str]) -> None:
    cohort, features = made(malignant=[True] * 60, alnm=[index % 2 == 0 for index in range(60)])
    fitted = fit(cohort, features, split_seed=0, seed=0, feature_set="93")
    assert list(fitted) == ["alnm"]
    assert fitted["alnm"].selected == TELLING[1:]
    n = int((~in_test_part(cohort, 0)).sum())
    said = capsys.readouterr().out
    assert f"malignancy: training has {n} positive and 0 negative labels of `malignant`" in said
    _, heads = predict(cohort, features, fitted, split_seed=0)
    assert [(head.name, head.parent, head.given) for head in heads] == [("alnm", None, "malignant")]


def test_the_burden_is_learned_on_malignant_lesions(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has more than three nodes: the bound of four is left out, the others are not."""
    n_nodes = [0 if index % 2 else index // 2 % 4 for index in range(160)]
    malignant = [index % 2 == 0 for index in range(160)]
    cohort, features = made(malignant=malignant, n_nodes=n_nodes)
    features[TELLING[1]] += 4 * cohort.table["n_nodes"].to_numpy(dtype=float)
    fitted = fit(cohort, features, split_seed=0, seed=0, feature_set="93")
    assert list(fitted) == ["malignancy", "nodes_2", "nodes_3"]
    said = capsys.readouterr().out
    learned = ~in_test_part(cohort, 0)
    on = cohort.table[learned & cohort.table["malignant"].to_numpy(dtype=bool)]["n_nodes"]
    assert f"nodes_4: training has 0 positive and {len(on)} negative labels" in said
    for bound in (2, 3):
        found = fitted[f"nodes_{bound}"]
        assert (found.n_images, found.n_positive) == (len(on), (on >= bound).sum())
        assert found.selected == TELLING[1:]

    predictions, heads = predict(cohort, features, fitted, split_seed=0)
    # ALNM has no label here: what is above it stands in as the parent.
    assert [(head.name, head.parent) for head in heads] == [
        ("malignancy", None),
        ("nodes_2", "malignancy"),
        ("nodes_3", "nodes_2"),
    ]
    tested = cohort.table["n_nodes"][in_test_part(cohort, 0)]
    assert [head.given for head in heads] == [None, "malignant", "malignant"]
    assert predictions["nodes_3_truth"].tolist() == (tested >= 3).tolist()


def test_nodes_that_are_counted_in_positive_axillae_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of malignant lesions without ALNM the burden is known: it is none."""

    def count(_: pd.DataFrame, truth: np.ndarray, seed: int) -> forest.Fitted:
        return forest.Fitted(
            n_images=len(truth), n_positive=int(truth.sum()), selected=[""], used=[], forest=None
        )

    monkeypatch.setattr(forest, "fit_label", count)
    malignant = [index % 2 == 0 for index in range(160)]
    alnm = [index % 4 == 0 if index % 2 == 0 else None for index in range(160)]
    n_nodes = [1 + index // 4 % 4 if index % 4 == 0 else None for index in range(160)]
    cohort, features = made(malignant=malignant, alnm=alnm, n_nodes=n_nodes)
    fitted = fit(cohort, features, split_seed=0, seed=0, feature_set="93")
    table = cohort.table[~in_test_part(cohort, 0)]
    burden = table["n_nodes"].fillna(0)[table["malignant"].astype(bool)]
    for bound in (2, 3, 4):
        found = fitted[f"nodes_{bound}"]
        assert (found.n_images, found.n_positive) == (len(burden), int((burden >= bound).sum()))
    # Where no node was ever counted nothing follows: there is no forest for the burden.
    cohort, features = made(malignant=malignant, alnm=alnm)
    assert list(fit(cohort, features, split_seed=0, seed=0, feature_set="93")) == [
        "malignancy",
        "alnm",
    ]
