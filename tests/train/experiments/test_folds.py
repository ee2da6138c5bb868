import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from model_def.checkpoint import read_card
from model_def.heads import probabilities
from tests.command_line import sonode
from tests.conftest import TRUNK
from tests.train.running import CONFIGS
from train.cohorts.cohort import Cohort
from train.cohorts.folds import folds_of
from train.experiments import folds
from train.fitting import resume
from train.fitting.pooled import read_held_out


def run(cohort: Cohort, out: Path, *more: str) -> tuple[int, str]:
    done = sonode(
        *("train", "folds", "--config", CONFIGS / "pretrain.yaml", "--data.cohort", cohort.folder),
        *("--out", out, f"--model.architecture={TRUNK}", "--model.preprocessing.size=32"),
        *("--trainer.precision=32-true", "--data.batch_size=8"),
        *("--data.folds=2", "--trainer.max_epochs=1", *more),
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folds that were trained, in this process; the second is interrupted once."""
    names: list[str] = []

    def here(arguments: list[str]) -> int:
        if len(names) == 1:
            names.append("none")
            raise KeyboardInterrupt
        names.append(next(it.split("=")[1] for it in arguments if "--data.fold=" in it))
        return sonode(*arguments).returncode

    monkeypatch.setattr(folds, "run_sonode", here)
    return names


def test_folds_are_trained_once_pooled_and_followed_by_a_network_on_everybody(
    phantom: Cohort, tmp_path: Path, trained: list[str]
) -> None:
    out = tmp_path / "out"
    code, said = run(phantom, out)
    assert code == 130
    assert "plan: 2 folds of 7 7 patients" in said
    assert "0 of 2 networks are done" in said
    code, said = run(phantom, out)
    assert code == 0, said
    assert trained == ["1", "none", "2"]
    assert "1 of 2 networks are done" in said
    assert "no network was trained on all patients" in said
    assert not (out / "checkpoint").exists()

    # Each row by the network of the other fold, in the cohort's order.
    frame = pd.read_parquet(out / "evidence" / "predictions.parquet")
    fold_N = folds_of(phantom, 2, 0)
    assert frame["fold"].tolist() == fold_N.tolist()
    assert frame["lesion_id"].tolist() == phantom.table["lesion_id"].tolist()
    for number in ("1", "2"):
        folder = out / "folds" / number / "checkpoint"
        rows, logits, _ = read_held_out(folder)
        assert rows == [row for row, its in enumerate(fold_N) if its == number]
        card = read_card(folder)
        assert (card.training["cohort"]["fold"], card.training["keep"]) == (number, "last")
        expected = probabilities(logits, card.heads, card.hierarchy)[:, 0]  # temperature 1
        found = torch.tensor(frame["malignancy_probability"].to_numpy())[rows]
        torch.testing.assert_close(found, expected.double())

    code, said = run(phantom, out, "--refit")
    assert code == 0, said
    assert trained == ["1", "none", "2", "all"]
    statement = "trained on all 14 patients; figures are of 2 folds"
    assert f"{out / 'checkpoint'}: {statement}" in said
    card = read_card(out / "checkpoint")
    metrics = json.loads((out / "evidence" / "metrics.json").read_text())
    figures = card.training["figures"]
    assert figures["statement"] == statement
    pooled = metrics["heads"]["malignancy"]["sets"]["all"]["patient"]["roc_auc"]
    assert figures["roc_auc"]["malignancy"]["patient"]["pooled"]["value"] == pooled["value"]
    assert card.training["cohort"]["train"] == {"patients": 14, "images": len(frame)}
    part = sum(card.training["score_reference"]["malignancy"])
    assert part == len(frame)  # of the folds
    seen = pd.read_parquet(out / "checkpoint" / "images.parquet")
    assert set(seen["pixels_sha256"]) == set(phantom.table["pixels_sha256"])
    assert set(seen["part"]) == {"train"}

    # It has no figure of its own, on these patients.
    given = ("evaluate", out / "checkpoint", phantom.folder, tmp_path / "report")
    for more, why in (
        ((), "was trained on all 14 patients, and no part was kept aside"),
        (("--part", "all"), "is the cohort that the checkpoint was trained on"),
    ):
        done = sonode(*given, *more)
        assert done.returncode == 2
        assert why in done.stderr
    line = ("--data.cohort", phantom.folder, "--out", out, "--data.folds=2", "--data.fold=all")
    done = sonode("train", "test", "--config", CONFIGS / "pretrain.yaml", *line)
    assert done.returncode == 2
    assert "no patient was kept aside as test part" in done.stderr

    code, said = run(phantom, out, "--refit", "--trainer.max_epochs=2")
    assert code == 2
    assert "holds folds of another configuration or cohort" in said
    with resume.lock(out / "folds"):
        code, said = run(phantom, out, "--refit")
    assert code == 2
    assert "another training uses it" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--keep=loss"], "--keep loss: a fold's own patients would choose"),
        (["--data.fold=1"], "data.folds 2, data.fold 1: give data.folds alone"),
        (["--data.folds=5"], "5 folds, and only 4 patients with 'no ALNM' of alnm"),
        (["--data.folds=fold_5"], "data.folds fold_5: the cohort has no such column"),
        (["--trainer.max_epochs=-1"], "trainer.max_epochs -1: give a number of epochs"),
        (["--trainer.max_steps=9"], "trainer.max_steps and max_time: would end folds at different"),
    ],
)
@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    phantom: Cohort, tmp_path: Path, more: list[str], message: str
) -> None:
    code, said = run(phantom, tmp_path / "out", *more)
    assert code == 2
    assert said.splitlines()[-1].startswith("error: ")
    assert message in said.splitlines()[-1]
    assert not (tmp_path / "out").exists()
