"""`sonode paper` over runs that are made up: what a training costs is spent in other tests."""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from model_def.checkpoint import WEIGHTS, ModelCard
from sonode.console import UserError
from tests.command_line import sonode
from train.cohorts.cohort import Cohort, write_cohort
from train.cohorts.split import parts_of
from train.data.datamodule import CohortData
from train.experiments import ablation
from train.experiments.ablation_table import MEASURES, REFERENCE
from train.fitting.predictions import Predictions, facts_of
from train.paper import command
from train.radiomics.forest import BORUTA, FOREST, HEADS
from train.repeats import runs
from train.repeats.variants import TASKS, untrained, variants_of
from train.running.planned import Seconds

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, as on the command line
ALL = [head.name for head in HEADS]


def scored(cohort: Cohort, heads: Sequence[str], seed: int) -> pd.DataFrame:
    """The test part under split seed 4 with scores that know a little of the truth."""
    data = CohortData(cohort.folder, split_seed=4)
    frame = facts_of(cohort, np.array(data.rows_of("test")))
    chance = np.random.default_rng(seed)
    signal = frame["malignant"].to_numpy(float) - 0.5
    frame["malignancy_truth"] = frame["malignant"]
    frame["alnm_truth"] = frame["alnm"].where(frame["malignant"], False)
    for head in heads:
        noise = chance.normal(0, 1, len(frame))
        frame[f"{head}_probability"] = 1 / (1 + np.exp(-signal - noise))
    return frame


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text("trainer: {max_epochs: 3}\ndata: {split_seed: 4}\n")
    return path


def heads_of(folder: Path) -> list[str]:
    """The heads of a run that is made up, by its folder's name."""
    variant = folder.name[:-2]
    alone = variant.removeprefix("single_")
    return [alone] if alone != variant else ALL if "burden" in variant else ALL[:2]


@pytest.fixture(scope="module")
def trained(phantom: Cohort, card: ModelCard) -> Iterator[list[str]]:
    """In place of trainings: predictions. The list says which were made, in order."""
    made: list[str] = []

    def train(_: Path, folder: Path, __: Path, flags: Sequence[str], seed: int) -> None:
        (folder / "checkpoint").mkdir(parents=True)
        points = {"0.5": 0.5, "sensitivity_0.90": 0.3 + seed / 10}
        heads = [
            it.model_copy(update={"operating_points": points, "parent": None})
            for it in HEADS
            if it.name in heads_of(folder)
        ]
        text = card.model_copy(update={"heads": tuple(heads)}).model_dump_json()
        (folder / "checkpoint" / ablation.CARD).write_text(text)
        (folder / "checkpoint" / WEIGHTS).write_text(f"{folder.name}")
        made.append(folder.name)

    def predicted(checkpoint: Path, *_: Any) -> Predictions:
        heads = heads_of(checkpoint.parent)
        frame = scored(phantom, heads, int(checkpoint.parent.name[-1]))
        return Predictions(
            frame=frame,
            heads=(),
            hierarchy="independent",
            about={},
            crops=[np.full((20, 30), 90, np.uint8)] * len(frame),
            cams={head: np.ones((len(frame), 2, 2), np.float32) for head in heads},
        )

    def fit(_: Path, out: Path, *, seed: int, **__: Any) -> None:
        out.mkdir(parents=True)
        scored(phantom, ALL, 10 + seed).to_parquet(out / runs.PREDICTIONS)
        heads = {
            "malignancy": {"selected": ["original_glcm_Contrast", f"original_ngtdm_{seed}"]},
            "alnm": {"selected": None if seed else ["original_glcm_Contrast"]},
        }
        settings = {"feature_set": "93", "boruta": BORUTA, "forest": FOREST}
        record = {"settings": settings, "heads": heads, "versions": {"Boruta": "1"}}
        (out / "radiomics.json").write_text(json.dumps(record))
        made.append(f"radiomics-{seed}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "_train", train)
        patch.setattr(runs, "predict", predicted)
        patch.setattr(runs.radiomics, "run", fit)
        patch.setattr(command, "radiomics_absent", lambda: None)
        patch.setattr(command, "measured", lambda _: Seconds(0.5, 0.01))
        patch.setattr(ablation, "measure", lambda *_: dict.fromkeys(MEASURES, 0.5))
        yield made


def paper(cohort: Cohort, out: Path, config: Path, **more: Any) -> list[str]:
    """Run it; the lines that it prints."""
    given = {"seeds": 2, "bootstrap": 50, "quick": False, **more}
    with contextlib.redirect_stdout(io.StringIO()) as told:
        command.run(cohort.folder, out, config=config, **given)
    return told.getvalue().splitlines()


class Done(NamedTuple):
    out: Path
    told: list[str]
    trained: list[str]


@pytest.fixture(scope="module")
def done(
    phantom: Cohort, config: Path, trained: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Done:
    out = tmp_path_factory.mktemp("paper") / "out"
    told = paper(phantom, out, config)
    return Done(out, told, list(trained))


def test_the_plan_comes_first_and_what_is_done_is_not_repeated(
    phantom: Cohort, config: Path, done: Done, trained: list[str]
) -> None:
    assert done.trained[:2] == ["radiomics-0", "radiomics-1"]
    for variant in ablation.VARIANTS:
        name = variant.replace(" ", "_")
        assert {f"{name}-0", f"{name}-1"} < set(done.trained)
    assert len(done.trained) == len(set(done.trained))
    grid = [it for it in done.trained if it.startswith("margin")]
    assert len(grid) == 3 * 3 * 2 and done.trained[-1] == "margin_0.3,_weight_0.2-1"
    assert [it.split(":")[0] for it in done.told[:5]] == ["cohort", *["plan"] * 3, "time"]
    assert f"for {len(done.trained) - 2} networks not trained yet" in done.told[4]
    page, table = done.out / "paper.html", done.out / "tables" / "table-2.csv"
    before = page.read_text(), table.read_bytes()
    trained.clear()
    told = paper(phantom, done.out, config)
    assert trained == [] and not any(it.startswith("time") for it in told)
    assert (page.read_text(), table.read_bytes()) == before
    figure = done.out / "figures" / "figure-3-alnm.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert all(str(it) not in before[0] for it in phantom.table["patient_id"])


def test_table_1_has_each_patient_in_one_part(done: Done, phantom: Cohort) -> None:
    counts = [
        int(pd.read_csv(done.out / "tables" / f"table-1-{it}.csv").loc[0, "all"])
        for it in ("training", "test")
    ]
    parts = pd.read_csv(done.out / "tables" / "table-1.csv", keep_default_na=False)
    assert parts.loc[0, ["training and validation", "test"]].tolist() == [str(it) for it in counts]
    tested = phantom.table[np.array(parts_of(phantom.table, 4)) == "test"]
    assert counts == [14 - tested["patient_id"].nunique(), tested["patient_id"].nunique()]


def test_table_2_has_every_measure_with_interval_and_p(done: Done, phantom: Cohort) -> None:
    table = pd.read_csv(done.out / "tables" / "table-2.csv")
    measures = ["roc_auc", "accuracy", "sensitivity", "specificity", "precision", "f1"]
    models = [REFERENCE, "radiomics", f"{REFERENCE} minus radiomics"]
    columns = (table[it] for it in ("task", "per", "model", "measure"))
    assert list(zip(*columns, strict=True)) == [
        (task, per, model, it)
        for task in ("malignancy", "alnm")
        for per in ("image", "patient")
        for model in models
        for it in measures
    ]
    first = table.iloc[0]
    frames = [scored(phantom, ALL[:2], seed) for seed in (0, 1)]
    truth = frames[0]["malignant"].to_numpy(bool)
    aucs = []
    for frame in frames:
        p = frame["malignancy_probability"].to_numpy()
        aucs.append(np.mean(p[truth][:, None] > p[~truth][None]))
    assert first["value"] == pytest.approx(np.mean(aucs))
    assert first["sd"] == pytest.approx(abs(aucs[0] - aucs[1]) / np.sqrt(2))
    assert (first["rows"], first["positive"]) == (len(truth), truth.sum())
    of_patient = table[table["per"] == "patient"].iloc[0]
    means = [its.groupby("patient_id").mean(numeric_only=True) for its in frames]
    sick = frames[0].groupby("patient_id")["malignant"].any().to_numpy(bool)
    each = [its["malignancy_probability"].to_numpy() for its in means]
    aucs = [np.mean(p[sick][:, None] > p[~sick][None]) for p in each]
    assert of_patient["value"] == pytest.approx(np.mean(aucs))
    assert (of_patient["rows"], of_patient["positive"]) == (len(sick), sick.sum())
    apart = table[table["model"] == models[2]]
    few = apart["undefined_resamples"] > 2  # of 50 draws of a handful of patients
    assert (apart["p_value"].between(0, 1) | few | apart["value"].isna()).all()
    assert apart["p_value"].notna().any()


def test_every_pair_of_variants_has_p_as_it_is_and_adjusted(done: Done, phantom: Cohort) -> None:
    pairs = pd.read_csv(done.out / "tables" / "table-s3.csv")
    # 5 variants with malignancy and 5 with ALNM: 10 pairs each, per image and per patient.
    assert pairs.groupby(["task", "per", "measure"]).size().tolist() == [10] * 24
    for per in ("image", "patient"):
        chosen = (pairs["task"] == "malignancy") & (pairs["measure"] == "accuracy")
        one = pairs[chosen & (pairs["per"] == per)]
        raw = one["p_value"].dropna().to_numpy()
        assert len(raw) and one["p_holm"].min() == pytest.approx(min(1, len(raw) * raw.min()))
        assert (one["rows"] == one["patients"]).all() == (per == "patient")
    grid = pd.read_csv(done.out / "tables" / "search.csv")
    assert len(grid) == 9 and set(grid["weight"]) == {0.01, 0.05, 0.2}
    burden = pd.read_csv(done.out / "tables" / "table-4.csv")
    assert list(burden["task"].unique()) == ALL[1:]
    assert set(burden["per"][burden["model"] == "radiomics"]) == {"image", "patient"}
    page = (done.out / "paper.html").read_text()
    for part in ("train", "test"):  # each malignant lesion of the phantom has every label
        rows = phantom.table[np.array(parts_of(phantom.table, 4)) == part]
        rows = rows[rows["malignant"].astype(bool)]
        count, patients = len(rows), rows["patient_id"].nunique()
        four = f"4 nodes or more {(rows['n_nodes'] >= 4).sum()} of {count}; {patients}."
        text = page.split(f"Malignant lesions of the {part}")[1].split("</p>")[0]
        assert f": {count} images of {patients} patients; kept" in text and four in text
    assert f"SHA-256 {phantom.sha256}" in page
    digests = pd.read_csv(done.out / "tables" / "checkpoints.csv").set_index(["model", "seed"])
    assert len(digests) == len([it for it in done.trained if not it.startswith(("rad", "margin"))])
    sha256 = digests.loc[("chain", 1), "weights_sha256"]
    assert sha256 == hashlib.sha256(b"chain-1").hexdigest() and sha256 in page
    assert "on malignant lesions, under max-constraint on all;" in page
    assert "Augmentation: flip, smallest_crop 0.6, distortion 0.2. Each of" in page
    assert "come from 50 bootstrap draws of whole patients (seed 0), in which" in page
    assert "as given by --config" in page and "resnet50 at 256 pixels, 200 epochs" in page


def test_s1_and_s2_are_of_all_repeats(done: Done) -> None:
    profile = pd.read_csv(done.out / "tables" / "figure-s1.csv")
    assert set(profile["task"]) == {"malignancy", "alnm"} and (profile["mean"] == 1).all()
    assert (profile[["sd_over_images", "sd_over_repeats"]] == 0).all().all()
    chosen = pd.read_csv(done.out / "tables" / "table-s2.csv")
    assert chosen.values.tolist() == [
        ["original_glcm_Contrast", 2, 1, 2],
        ["original_ngtdm_0", 1, 0, 2],
        ["original_ngtdm_1", 1, 0, 2],
    ]
    page = (done.out / "paper.html").read_text()
    assert "ALNM: in 1 of 2 repeats Boruta confirmed no feature" in page
    assert "4 nodes or more: no model, since" in page and "The 93 features of" in page


def test_inconsistency_and_its_price_are_those_of_the_repeats(done: Done, phantom: Cohort) -> None:
    frames = [scored(phantom, ALL[:2], seed) for seed in (0, 1)]
    malignant = frames[0]["malignant"].to_numpy(bool)
    errors = [
        ((it["alnm_probability"] > 0.5) & (it["malignancy_probability"] <= 0.5)) for it in frames
    ]
    type_2 = [int((it & malignant).sum()) for it in errors]
    assert sum(type_2)
    whole = pd.read_csv(done.out / "tables" / "inconsistency.csv")
    assert set(whole["per"]) == {"image", "patient"}  # a lesion is a patient here
    table = whole[whole["per"] == "image"].set_index(["variant", "measure"])
    of_all, of_class = (table.loc[("multi-task", f"type_2 of {it}")] for it in ("all", "malignant"))
    assert of_all["counts"] == " ".join(map(str, type_2))
    assert of_all["value"] == pytest.approx(np.mean(type_2) / len(malignant))
    assert of_class["value"] == pytest.approx(np.mean(type_2) / malignant.sum())
    apart = table.loc[("chain", "type_2 of all minus multi-task")]
    assert apart["value"] == 0  # the same made-up scores
    prices = pd.read_csv(done.out / "tables" / "coherence.csv")
    price = prices[prices["per"] == "image"]
    found = price[price["point"] == "sensitivity_0.90"].set_index(["variant", "measure"])["value"]
    called = [it["alnm_probability"] > at for it, at in zip(frames, (0.3, 0.4), strict=True)]
    alnm = frames[0]["alnm_truth"].to_numpy(bool)
    assert found["chain", "alnm sensitivity"] == pytest.approx(np.mean([it[alnm] for it in called]))
    heads = ["alnm_probability", "malignancy_probability"]
    of_patients = [
        it.assign(m=malignant).groupby("patient_id")[[*heads, "m"]].mean() for it in frames
    ]
    wrong = [it[(it[heads[0]] > 0.5) & (it[heads[1]] <= 0.5)] for it in of_patients]
    its = whole.set_index(["variant", "per", "measure"]).loc[("multi-task", "patient")]
    assert its.loc["type_2 of all", "counts"] == " ".join(
        str(int((it["m"] > 0).sum())) for it in wrong
    )
    assert its.loc["type_1 of all", "value"] == pytest.approx(
        np.mean([(it["m"] == 0).sum() for it in wrong]) / len(of_patients[0])
    )
    found = prices.set_index(["variant", "per", "point", "measure"])["value"]
    positive = frames[0][alnm]["patient_id"].nunique()
    on = [it[malignant & it["alnm_truth"].notna()] for it in frames]
    called = [
        it.assign(truth=it["alnm_truth"].astype(float))
        .groupby("patient_id")[["alnm_probability", "truth"]]
        .agg({"alnm_probability": "mean", "truth": "max"})
        .query(f"truth == 1 and alnm_probability > {at}")
        for it, at in zip(on, (0.3, 0.4), strict=True)
    ]
    assert found["multi-task", "patient", "sensitivity_0.90", "alnm sensitivity"] == pytest.approx(
        np.mean([len(it) for it in called]) / positive
    )
    assert "two single-task networks" in set(price["variant"])
    assert (price["point"] == "0.5, ALNM given malignancy").sum() == 2
    page = (done.out / "paper.html").read_text()
    for number in ("5", "6"):
        made = (done.out / "figures" / f"figure-{number}.png").is_file()
        assert made != (f"Figure {number} is absent" in page)
    assert "SYNTHETIC: no patient is in it." in page


def test_a_cohort_without_a_label_and_a_machine_without_radiomics(
    phantom: Cohort,
    tmp_path: Path,
    config: Path,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "radiomics_absent", lambda: "boruta is not installed")
    table = phantom.table.assign(alnm=None, n_nodes=None)
    more = "model: {loss: {parent_negative: negative}}\n"
    (tmp_path / "more.yaml").write_text(config.read_text() + more)
    trained.clear()
    paper(written(phantom, table, tmp_path / "c"), tmp_path / "out", tmp_path / "more.yaml")
    assert trained == ["single_malignancy-0", "single_malignancy-1"]
    page = (tmp_path / "out" / "paper.html").read_text()
    assert "There is no radiomics model beside the network: boruta is not installed" in page
    assert "single alnm: not trained, since the cohort lacks a label" in page
    assert "no variant has both heads" in page
    assert "on malignant lesions, in a network of both on all;" in page
    assert all(f"Figure {number} is absent" in page for number in (4, 5, 6))
    burden = pd.read_csv(tmp_path / "out" / "tables" / "table-4.csv")
    assert len(burden) == 3 * len(ALL[1:]) * 6 and burden["value"].isna().all()
    assert set(burden["reason"][burden["model"] == "single nodes_3"]) == {
        "the cohort has no label of n_nodes"
    }
    found = pd.read_csv(tmp_path / "out" / "tables" / "table-2.csv")
    assert set(found["task"]) == {"malignancy"} and found["value"].notna().any()


def written(phantom: Cohort, table: pd.DataFrame, folder: Path) -> Cohort:
    folder.mkdir()
    for shared in phantom.folder.iterdir():
        if shared.is_dir():
            (folder / shared.name).symlink_to(shared)
    rows = table.drop(columns="pixels_sha256")
    write_cohort(folder, rows, name="bare", source="a test", synthetic=True)
    return replace(phantom, folder=folder, table=table)


def test_a_cohort_of_malignant_lesions_alone(
    phantom: Cohort, tmp_path: Path, config: Path, trained: list[str]
) -> None:
    malignant = phantom.table[phantom.table["malignant"]].reset_index(drop=True)
    trained.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "radiomics_absent", lambda: "boruta is not installed")
        cohort = written(phantom, malignant, tmp_path / "c")
        known = scored
        patch.setitem(globals(), "scored", lambda _, heads, seed: known(cohort, heads, seed))
        paper(cohort, tmp_path / "out", config, seeds=1)
    assert not [it for it in trained if "single" not in it]
    found = pd.read_csv(tmp_path / "out" / "tables" / "table-2.csv")
    assert set(found["task"]) == {"alnm"}
    page = (tmp_path / "out" / "paper.html").read_text()
    assert "no lesion to train on has the label benign" in page


def test_a_cohort_of_one_class_is_one_line_and_why(
    phantom: Cohort, tmp_path: Path, config: Path, trained: list[str]
) -> None:
    benign = phantom.table[~phantom.table["malignant"].astype(bool)].reset_index(drop=True)
    trained.clear()
    with pytest.raises(UserError, match="nothing can be trained on it") as caught:
        paper(written(phantom, benign, tmp_path / "c"), tmp_path / "out", config)
    assert caught.value.details[0] == "Malignancy: no lesion to train on has the label malignant"
    unknown = phantom.table.assign(malignant=pd.array([None] * len(phantom.table), "bool[pyarrow]"))
    with pytest.raises(UserError, match="nothing can be trained on it") as caught:
        paper(written(phantom, unknown, tmp_path / "d"), tmp_path / "out", config)
    # Each task has its reason, those that a missing label of malignancy alone stops, too.
    assert [it.partition(":")[0] for it in caught.value.details] == [
        it.title for it in TASKS.values()
    ]
    assert trained == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data: {split_seed: 4, folds: 5}", "data.folds keeps no test part"),
        ("data: {split_seed: 4}\nmodel: {depth: 18}", "depth"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_training(
    phantom: Cohort, tmp_path: Path, trained: list[str], text: str, why: str
) -> None:
    trained.clear()
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=why):
        paper(phantom, tmp_path / "out", tmp_path / "config.yaml")
    assert trained == [] and not (tmp_path / "out").exists()


def test_what_is_given_goes_before_what_quick_has(
    phantom: Cohort, tmp_path: Path, config: Path, trained: list[str]
) -> None:
    told = paper(phantom, tmp_path / "out", config, quick=True, seeds=1, bootstrap=None)
    assert any(" x 1 networks: single malignancy, " in line for line in told)
    assert "from 200 draws of whole patients" in (tmp_path / "out" / "paper.html").read_text()


def test_another_plan_and_other_files_are_refused(
    phantom: Cohort, tmp_path: Path, config: Path, done: Done
) -> None:
    with pytest.raises(UserError, match="another cohort, configuration or variants"):
        paper(phantom, done.out, config, quick=True)
    (tmp_path / "thesis.txt").touch()
    refused = sonode("paper", phantom.folder, tmp_path, "--quick")
    assert refused.returncode == 2 and "has other files" in refused.stderr


def test_of_the_burden_a_chain_has_the_heads_that_have_labels(phantom: Cohort) -> None:
    table = phantom.table.copy()
    none = pd.array([None] * len(table), dtype=table["n_nodes"].dtype)
    assert "chain of the burden" not in variants_of(
        replace(phantom, table=table.assign(n_nodes=none)), 4, False
    )
    positive = table["alnm"].fillna(False).to_numpy(bool)
    # Of the positive ones every second patient has 1 node, the others 2: no 3 and no 4.
    second = table["patient_id"].map(lambda it: int(it[-1]) % 2 == 0).to_numpy(bool)
    count = np.where(positive, np.where(second, 2, 1), 0)
    table["n_nodes"] = pd.array(count, dtype=table["n_nodes"].dtype)
    parts = np.array(parts_of(table, 4))
    assert set(count[positive & (parts == "train")]) == {1, 2}
    found = variants_of(replace(phantom, table=table), 4, False)
    assert [it for it in found if it.startswith("single")][2:] == ["single nodes_2"]
    (heads,) = (it for it in found["chain of the burden"] if it.startswith("--model.heads"))
    assert "nodes_2" in heads and "nodes_3" not in heads
    why = untrained(replace(phantom, table=table), 4)
    assert why["chain of the burden", "nodes_4"].startswith("3 nodes or more: no lesion to train")
    assert ("chain of the burden", "nodes_2") not in why and ("single nodes_3", "nodes_3") in why
    # With 0 or 3 nodes, a network of its own learns "3 or more"; after "2 or more" nothing is left.
    table["n_nodes"] = pd.array(np.where(positive, 3, 0), dtype=table["n_nodes"].dtype)
    found = variants_of(replace(phantom, table=table), 4, False)
    assert {"single nodes_2", "single nodes_3"} < set(found)
    assert not {"single nodes_4", "chain of the burden"} & set(found)
