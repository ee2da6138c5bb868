"""`sonode paper` over runs that are made up: what a training costs is spent in other tests."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sonode.console import UserError
from tests.command_line import sonode
from train.cohorts.cohort import Cohort, write_cohort
from train.evidence import ablation
from train.fitting.datamodule import CohortData
from train.fitting.predictions import facts_of
from train.paper import command, runs
from train.paper.variants import NETWORK


def scored(cohort: Cohort, heads: Sequence[str], seed: int) -> pd.DataFrame:
    """The test part under split seed 4 with scores that know a little of the truth."""
    data = CohortData(cohort.folder, split_seed=4)
    frame = facts_of(cohort, np.array(data.rows_of("test")))
    chance = np.random.default_rng(seed)
    signal = frame["malignant"].to_numpy(float) - 0.5
    for head in heads:
        noise = chance.normal(0, 1, len(frame))
        frame[f"{head}_probability"] = 1 / (1 + np.exp(-signal - noise))
    return frame


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        "trainer: {max_epochs: 3}\ndata: {split_seed: 4}\nmodel: {architecture: resnet18}\n"
    )
    return path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, phantom: Cohort) -> list[str]:
    """In place of trainings: predictions. The list says which were made, in order."""
    made: list[str] = []

    def train(_: Path, folder: Path, __: Path, flags: Sequence[str], seed: int) -> None:
        (folder / "checkpoint").mkdir(parents=True)
        (folder / "checkpoint" / ablation.CARD).touch()
        made.append(folder.name)

    def predicted(checkpoint: Path, *_: Any) -> Any:
        heads = [it for it in ("malignancy", "alnm") if "single" not in str(checkpoint)]
        frame = scored(phantom, heads, int(checkpoint.parent.name[-1]))
        return type("Predicted", (), {"frame": frame})

    def fit(_: Path, out: Path, *, seed: int, **__: Any) -> None:
        out.mkdir(parents=True)
        scored(phantom, ("malignancy", "alnm"), 10 + seed).to_parquet(out / runs.PREDICTIONS)
        made.append(f"radiomics-{seed}")

    monkeypatch.setattr(ablation, "_train", train)
    monkeypatch.setattr(runs, "predict", predicted)
    monkeypatch.setattr(runs.radiomics, "run", fit)
    monkeypatch.setattr(command, "radiomics_absent", lambda: None)
    return made


def paper(cohort: Cohort, out: Path, config: Path, **more: Any) -> None:
    given = {"seeds": 2, "bootstrap": 100, "quick": False, **more}
    command.run(cohort.folder, out, config=config, **given)


def test_what_is_done_is_not_repeated_and_the_plan_comes_first(
    phantom: Cohort,
    tmp_path: Path,
    config: Path,
    trained: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    paper(phantom, out, config)
    network = NETWORK.replace(" ", "_")
    assert trained == ["radiomics-0", "radiomics-1", f"{network}-0", f"{network}-1"]
    told = capsys.readouterr().out.splitlines()
    assert told[2].startswith("plan: ")
    page = (out / "paper.html").read_text()
    numbers = (out / "tables" / "table-2.csv").read_bytes()
    assert (out / "figures" / "figure-3-alnm.png").read_bytes().startswith(b"\x89PNG")
    trained.clear()
    paper(phantom, out, config)
    assert trained == []
    assert (out / "paper.html").read_text() == page
    assert (out / "tables" / "table-2.csv").read_bytes() == numbers
    assert all(f"{id_}" not in page for id_ in phantom.table["patient_id"])


def test_table_2_has_every_measure_with_interval_and_p(
    phantom: Cohort, tmp_path: Path, config: Path, trained: list[str]
) -> None:
    paper(phantom, tmp_path / "out", config)
    table = pd.read_csv(tmp_path / "out" / "tables" / "table-2.csv")
    measures = ["roc_auc", "accuracy", "sensitivity", "specificity", "precision", "f1"]
    models = [NETWORK, "radiomics", f"{NETWORK} minus radiomics"]
    assert list(zip(table["task"], table["model"], table["measure"], strict=True)) == [
        (task, model, it) for task in ("malignancy", "alnm") for model in models for it in measures
    ]
    first = table.iloc[0]
    frames = [scored(phantom, ("malignancy", "alnm"), seed) for seed in (0, 1)]
    truth = frames[0]["malignant"].to_numpy(bool)
    aucs = []
    for frame in frames:
        p = frame["malignancy_probability"].to_numpy()
        aucs.append(np.mean(p[truth][:, None] > p[~truth][None]))
    assert first["value"] == pytest.approx(np.mean(aucs))
    assert first["sd"] == pytest.approx(abs(aucs[0] - aucs[1]) / np.sqrt(2))
    assert (first["rows"], first["positive"]) == (len(truth), truth.sum())
    apart = table[table["model"] == models[2]]
    few = apart["undefined_resamples"] > 5  # of 100 draws of a handful of patients
    assert (apart["p_value"].between(0, 1) | few | apart["value"].isna()).all()
    assert apart["p_value"].notna().any()


def test_a_cohort_without_a_label_has_an_empty_row_that_says_why(
    phantom: Cohort, tmp_path: Path, config: Path, trained: list[str]
) -> None:
    table = phantom.table.drop(columns="pixels_sha256")
    table["alnm"], table["n_nodes"] = None, None
    (tmp_path / "c").mkdir()
    for shared in phantom.folder.iterdir():
        if shared.is_dir():
            (tmp_path / "c" / shared.name).symlink_to(shared)
    write_cohort(tmp_path / "c", table, name="bare", source="a test", synthetic=True)
    paper(replace(phantom, folder=tmp_path / "c"), tmp_path / "out", config)
    page = (tmp_path / "out" / "paper.html").read_text()
    assert "undefined: no row of the test part has the label" in page
    found = pd.read_csv(tmp_path / "out" / "tables" / "table-2.csv")
    assert found.loc[found["task"] == "alnm", "value"].isna().all()
    assert found.loc[found["task"] == "malignancy", "value"].notna().any()


def test_without_the_extra_the_page_says_so(
    phantom: Cohort,
    tmp_path: Path,
    config: Path,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "radiomics_absent", lambda: "boruta is not installed")
    paper(phantom, tmp_path / "out", config)
    assert not [it for it in trained if it.startswith("radiomics")]
    assert "no radiomics model" in (tmp_path / "out" / "paper.html").read_text()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data: {split_seed: 4, folds: 5}", "data.folds keeps no test part"),
        ("data: {split_seed: 4}\nmodel: {depth: 18}", "depth"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_training(
    phantom: Cohort, tmp_path: Path, config: Path, trained: list[str], text: str, why: str
) -> None:
    config.write_text(text)
    with pytest.raises(UserError, match=why):
        paper(phantom, tmp_path / "out", config)
    assert trained == [] and not (tmp_path / "out").exists()


def test_another_plan_and_other_files_are_refused(
    phantom: Cohort, tmp_path: Path, config: Path, trained: list[str]
) -> None:
    paper(phantom, tmp_path / "out", config)
    with pytest.raises(UserError, match="another cohort, configuration or variants"):
        paper(phantom, tmp_path / "out", config, quick=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    done = sonode("paper", phantom.folder, tmp_path / "mine", "--quick")
    assert done.returncode == 2 and "has other files" in done.stderr
