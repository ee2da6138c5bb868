import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from model_def.checkpoint import ModelCard, load, read_card, save
from model_def.heads import probabilities
from model_def.network import Network
from model_def.preprocessing import Preprocessing
from tests.command_line import sonode
from tests.conftest import HEADS, TRUNK
from tests.train.trainings import CONFIGS
from train.cohorts.cohort import Cohort, load_cohort
from train.cohorts.folds import folds_of
from train.evidence.report import write_evaluation
from train.experiments import fold_networks, folds
from train.fitting.pooled import HELD_OUT, held_out_bytes, read_held_out
from train.running import resume


def run(cohort: Cohort, out: Path, *more: str) -> tuple[int, str]:
    done = sonode(
        *("train", "folds", "--config", CONFIGS / "pretrain.yaml", "--data.cohort", cohort.folder),
        *("--out", out, f"--model.architecture={TRUNK}", "--model.preprocessing.size=32"),
        *("--trainer.precision=32-true", "--data.batch_size=8"),
        *("--data.folds=2", "--trainer.max_epochs=1", *more),
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the intervals, which other tests are about."""
    monkeypatch.setattr(folds, "write_evaluation", partial(write_evaluation, bootstrap=50))


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

    monkeypatch.setattr(fold_networks, "run_sonode", here)
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

    code, said = run(phantom, out, "--refit", "--members=1")
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
        ((), "was trained on all 14 patients, and no part was held out"),
        (("--part", "all"), "is the cohort that the checkpoint was trained on"),
    ):
        done = sonode(*given, *more)
        assert done.returncode == 2
        assert why in done.stderr
    line = ("--data.cohort", phantom.folder, "--out", out, "--data.folds=2", "--data.fold=all")
    done = sonode("train", "test", "--config", CONFIGS / "pretrain.yaml", *line)
    assert done.returncode == 2
    assert "no patient was held out as test part" in done.stderr

    code, said = run(phantom, out, "--refit", "--members=1", "--trainer.max_epochs=2")
    assert code == 2
    assert "holds folds of another configuration or cohort" in said
    with resume.lock(out / "folds"):
        code, said = run(phantom, out, "--refit", "--members=1")
    assert code == 2
    assert "another training uses it" in said


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The fold and seed of each network; it has random weights in place of a training."""
    found: list[tuple[str, int]] = []

    def make(arguments: list[str]) -> int:
        its = dict(word.split("=", 1) for word in arguments if "=" in word)
        fold, seed, out = its["--data.fold"], int(its["--seed_everything"]), Path(its["--out"])
        found.append((fold, seed))
        cohort = load_cohort(Path(arguments[arguments.index("--data.cohort") + 1]))
        rows = np.flatnonzero(folds_of(cohort, 2, 0) == fold)
        torch.manual_seed(seed)
        logits_NL = torch.randn(len(rows), 2)
        facts = {"name": cohort.name, "sha256": cohort.sha256, "fold": fold}
        card = ModelCard(
            architecture=TRUNK,
            heads=HEADS,
            preprocessing=Preprocessing(size=32),
            training={"seed": seed, "cohort": facts, "weights": "none"},
        )
        beside = {HELD_OUT: held_out_bytes(rows.tolist(), logits_NL, np.arange(len(rows)) + seed)}
        save(out / "checkpoint", Network(card.architecture, 2), card, beside)
        log = out / "run" / "csv" / "metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text("epoch,step,val_calibrated_loss,val_auc/malignancy/all\n0,5,0.7,0.6\n")
        return 0

    monkeypatch.setattr(fold_networks, "run_sonode", make)
    return found


def test_folds_that_began_with_other_weights_are_not_pooled(
    phantom: Cohort, tmp_path: Path, made: list[tuple[str, int]]
) -> None:
    """The path of the weights is the same, and the file another one since."""
    out = tmp_path / "out"
    code, said = run(phantom, out)
    assert code == 0, said
    folder = out / "folds" / "2" / "checkpoint"
    network, card = load(folder)
    held_out = (folder / HELD_OUT).read_bytes()
    training = {**card.training, "weights": "sha256 of another file"}
    save(folder, network, card.model_copy(update={"training": training}), {HELD_OUT: held_out})
    code, said = run(phantom, out)
    assert code == 2
    assert "fold 2 (2 of 2): its network began with other weights" in said.splitlines()[-1]


@pytest.mark.slow
def test_members_are_averaged_in_each_fold_and_in_the_last_network(
    phantom: Cohort, tmp_path: Path, made: list[tuple[str, int]]
) -> None:
    out = tmp_path / "out"
    enough = "--model.false_alarms=0.2"  # of 14 patients
    code, said = run(phantom, out, enough, "--members", "2")
    assert code == 0, said
    assert "2 networks for each, trained on the others" in said
    assert "they differ by their seeds 0 1" in said
    # What goes into service has three unless it is said otherwise; those that are there stay.
    code, said = run(phantom, out, enough, "--refit")
    assert code == 0, said
    assert "the network's pass cost 3 times what one costs (`--members 1`)" in said
    assert made[:6] == [("1", 0), ("1", 1), ("2", 0), ("2", 1), ("1", 2), ("2", 2)]
    assert made[6:] == [("all", 0), ("all", 1), ("all", 2)]
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint", "evidence", "folds"]
    network, card = load(out / "checkpoint")
    assert (card.members, network.members, card.training["seeds"]) == (3, 3, [0, 1, 2])
    statement = "trained on all 14 patients; figures are of 2 folds of 3 networks each"
    assert card.training["figures"]["statement"].startswith(statement)

    # A row's probability is of the mean logit, its spread of the three, its distance the first's.
    frame = pd.read_parquet(out / "evidence" / "predictions.parquet")
    for fold in ("1", "2"):
        folders = [
            out / "folds" / f"{fold}{its}" / "checkpoint" for its in ("", "-seed1", "-seed2")
        ]
        aside = [read_held_out(folder) for folder in folders]
        logits_MNL = torch.stack([its.logits_NL for its in aside])
        its = frame.iloc[aside[0].rows]
        expected = probabilities(logits_MNL.mean(dim=0), card.heads, card.hierarchy)
        np.testing.assert_allclose(its["alnm_probability"], expected[:, 1])
        of_each = [probabilities(logits, card.heads, card.hierarchy) for logits in logits_MNL]
        np.testing.assert_allclose(its["alnm_spread"], torch.stack(of_each).std(dim=0)[:, 1])
        assert its["out_of_distribution_distance"].tolist() == aside[0].outlier_N.tolist()
    assert card.out_of_distribution is not None
    limit = card.out_of_distribution.limit
    assert (
        frame["out_of_distribution"].tolist()
        == (frame["out_of_distribution_distance"] > limit).tolist()
    )
    metrics = json.loads((out / "evidence" / "metrics.json").read_text())
    assert set(metrics["uncertainty"]["spread"]) == {"malignancy", "alnm"}
    assert metrics["about"]["model"]["members"] == 3
    by_count = pd.read_csv(out / "folds" / "members.csv").set_index(["head", "per", "members"])
    assert by_count.loc[("malignancy", "image", 1), "choices"] == 3
    pooled = metrics["heads"]["malignancy"]["sets"]["all"]["image"]["roc_auc"]["value"]
    assert by_count.loc[("malignancy", "image", 3), "roc_auc"] == pytest.approx(pooled)

    # Its figures are of three; and what another training left among them is no member.
    code, said = run(phantom, out, enough, "--members=2", "--refit")
    assert code == 2
    assert f"--members 2: {out / 'checkpoint'} has 3" in said
    folder = out / "folds" / "1-seed1" / "checkpoint"
    other = read_card(folder).model_copy(update={"preprocessing": Preprocessing(size=48)})
    save(folder, load(folder)[0], other)
    code, said = run(phantom, out, enough, "--members=3")
    assert code == 2
    assert "folds/1-seed1: differs from folds/1 in its preprocessing" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--members=0"], "--members 0: give 1 or more"),
        (["--members=few"], "argument --members: invalid int value: 'few'"),
        (["--keep=loss"], "--keep loss: a fold's own patients would choose"),
        (["--data.fold=1"], "data.folds 2, data.fold 1: give data.folds alone"),
        (["--data.folds=5"], "5 folds, and only 4 patients with 'no ALNM' of alnm"),
        (["--data.folds=fold_5"], "data.folds fold_5: the cohort has no such column"),
        (["--model.weights=nowhere.pth"], "model.weights nowhere.pth: no such file"),
        (["--trainer.max_epochs=-1"], "trainer.max_epochs -1: give a number of epochs"),
        (["--trainer.max_steps=9"], "trainer.max_steps and max_time: would end folds at different"),
        (
            ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
            "trainer.callbacks: early stopping would let a fold's own patients choose",
        ),
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
