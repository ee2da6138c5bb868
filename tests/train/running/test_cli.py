import hashlib
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback

from model_def import checkpoint
from sonode.console import UserError, counted
from tests.command_line import sonode
from tests.conftest import TRUNK
from tests.train.trainings import CONFIGS, arguments, command, train, train_alone
from train.cohorts.cohort import Cohort, write_cohort
from train.importers.phantom import write_phantom
from train.importers.table import import_voc
from train.running import resume
from train.running.command import run

AVERAGED = ["--model.average_decay=0.9", "--model.weight_decay=0.05"]


@pytest.fixture(scope="module")
def trained(phantom: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of an uninterrupted run over three epochs."""
    out = tmp_path_factory.mktemp("run") / "out"
    line = command("fit", phantom.folder, out, "--trainer.max_epochs=3")
    said = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "epoch 3/3: loss" in said
    assert "crops as stored" in said
    assert "\nseed 0, precision 32-true, processes 1\n" in said
    return out


def test_logs_and_the_images_of_the_split_are_kept(trained: Path, phantom: Cohort) -> None:
    log = pd.read_csv(trained / "run" / "csv" / "metrics.csv")
    assert log["val_loss"].notna().sum() == log["train_loss"].notna().sum() == 3
    assert len(list((trained / "run" / "tensorboard").glob("events.out.tfevents.*"))) == 1
    images = pd.read_parquet(trained / "checkpoint" / "images.parquet")
    assert set(images["pixels_sha256"]) == set(phantom.table["pixels_sha256"])
    assert set(images["part"]) == {"train", "val", "test"}


def test_the_card_says_what_a_reviewer_asks(trained: Path, phantom: Cohort) -> None:
    card = checkpoint.read_card(trained / "checkpoint")
    assert card.architecture == TRUNK
    assert [head.name for head in card.heads] == ["malignancy", "alnm"]
    assert (card.preprocessing.size, card.preprocessing.context) == (32, 0.2)
    for head in card.heads:  # two patients validate
        assert head.label_sets is not None
        assert "too few calibration patients" in str(head.label_sets.why)
    training = card.training
    validation = training["cohort"]["val"]["images"]
    assert [sum(counts) for counts in training["score_reference"].values()] == [validation] * 2
    assert training["cohort"]["sha256"] == phantom.sha256
    assert training["cohort"]["synthetic"] is True
    images = [training["cohort"][part]["images"] for part in ("train", "val", "test")]
    assert sum(images) == len(phantom.table)
    malignancy, alnm = training["labels"]["malignancy"], training["labels"]["alnm"]
    assert sum(malignancy.values()) == images[0]
    assert sum(alnm.values()) == malignancy["malignant"]  # benign images are not in its term
    assert (training["precision"], training["processes"]) == ("32-true", 1)
    assert training["loss"] == {
        "hierarchy_weight": 0.05,
        "margin": 0.1,
        "parent_negative": "mask",
    }


def test_test_reports_the_exported_checkpoint_and_leaves_the_log_of_the_training(
    trained: Path, phantom: Cohort
) -> None:
    log = (trained / "run" / "csv" / "metrics.csv").read_bytes()
    done = train("test", phantom.folder, trained)
    assert done.returncode == 0, done.stderr
    assert (trained / "run" / "csv" / "metrics.csv").read_bytes() == log
    found = json.loads((trained / "test.json").read_text())
    assert [(item["head"], item["on"]) for item in found] == [
        ("malignancy", "all"),
        ("alnm", "malignancy positive"),
        ("alnm", "all"),
    ]
    for item in found:
        assert ("undefined" if item["auc"] is None else f"{item['auc']:.3f}") in done.stdout


def test_a_finished_checkpoint_is_not_trained_over(trained: Path, phantom: Cohort) -> None:
    done = train("fit", phantom.folder, trained)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --out")
    assert "holds a finished checkpoint; give another folder" in done.stderr


def weights(out: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(out / "checkpoint")[0].state_dict()


def test_the_average_of_the_weights_is_what_is_exported(phantom: Cohort, tmp_path: Path) -> None:
    for name, flags in (
        ("plain", ()),
        ("memoryless", ("--model.average_decay=1e-12",)),
        ("averaged", ("--model.average_decay=0.9",)),
    ):
        done = train("fit", phantom.folder, tmp_path / name, *flags, "--trainer.max_epochs=2")
        assert done.returncode == 0, done.stderr
    plain, same, other = (weights(tmp_path / name) for name in ("plain", "memoryless", "averaged"))
    for name, tensor in plain.items():
        torch.testing.assert_close(same[name], tensor)
    assert not torch.allclose(other["heads.weight"], plain["heads.weight"])
    training = checkpoint.read_card(tmp_path / "averaged" / "checkpoint").training
    assert training["average_decay"] == 0.9


@pytest.mark.parametrize(
    "more",
    [
        ["--data.num_workers=1"],
        pytest.param(AVERAGED, marks=pytest.mark.slow),
        pytest.param(["--model.schedule=step", "--model.step_epochs=1"], marks=pytest.mark.slow),
    ],
    ids=["trained", "averaged", "stepped"],
)
def test_a_killed_run_goes_on_to_the_same_weights_and_the_same_log(
    more: list[str], trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    unbroken = trained  # without a loader process, which changes no weight
    if more[0] != "--data.num_workers=1":
        unbroken = tmp_path / "unbroken"
        train_alone("fit", phantom.folder, unbroken, *more, "--trainer.max_epochs=3")
    out = tmp_path / "out"
    line = command("fit", phantom.folder, out, *more, "--trainer.max_epochs=3")
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for said in process.stdout:
            if said.startswith("epoch 2/3"):  # said before its own checkpoint is written
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "checkpoint").exists()

    other = train("fit", phantom.folder, out, *more, "--trainer.max_epochs=4")
    assert other.returncode == 2
    assert "holds an interrupted run of another configuration or cohort" in other.stderr

    line = command("fit", phantom.folder, out, *more, "--trainer.max_epochs=3")
    said = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "resuming the interrupted run after epoch " in said
    assert "epoch 1/3" not in said
    resumed = weights(out)
    for name, tensor in weights(unbroken).items():
        assert torch.equal(resumed[name], tensor), name
    logs = [pd.read_csv(it / "run" / "csv" / "metrics.csv") for it in (out, unbroken)]
    columns = sorted(logs[0].columns)
    assert columns == sorted(logs[1].columns)
    pd.testing.assert_frame_equal(logs[0][columns], logs[1][columns])


def test_the_state_of_each_epoch_is_kept_not_of_the_best_alone(
    phantom: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run goes on in a folder that has been moved."""
    rising = itertools.count()  # so that the first epoch is the best

    def loss(*_: Any) -> torch.Tensor:
        if (found := next(rising)) == 2:  # the first is of the check before training
            raise KeyboardInterrupt
        return torch.tensor(float(found))

    monkeypatch.setattr("train.fitting.task.calibrated_loss", loss)
    line = arguments("fit", phantom.folder, Path("out"), "--trainer.max_epochs=2")
    (tmp_path / "here").mkdir()
    begun = sonode("train", *line, cwd=tmp_path / "here")
    assert begun.returncode == 130, begun.stderr
    (tmp_path / "here").rename(tmp_path / "there")
    done = sonode("train", *line, cwd=tmp_path / "there")
    assert done.returncode == 0, done.stderr
    epochs = [
        torch.load(tmp_path / "there" / "out" / "run" / name, weights_only=True)["epoch"]
        for name in ("best.ckpt", "last.ckpt")
    ]
    assert epochs == [0, 1]
    # What decides is what is shown.
    assert "epoch to keep: the one whose validation loss, temperatures fitted, is lowest" in (
        done.stdout
    )
    assert "checkpoint of epoch 1 (lowest validation loss)" in done.stdout
    shown = re.findall(r"epoch \d/2: .* validation (\d\.\d{3}),", begun.stdout + done.stdout)
    assert list(map(float, shown)) == [1, 4]  # 3 is of the second check
    done = train("fit", phantom.folder, tmp_path / "last", "--trainer.max_epochs=2", "--keep=last")
    assert "epoch to keep: the last" in done.stdout
    assert "checkpoint of epoch 2 (the last)" in done.stdout
    assert not (tmp_path / "last" / "run" / "best.ckpt").exists()


def test_several_cohorts_are_trained_on_with_their_shares_said(
    phantom: Cohort, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "more", 3, 7)
    rows = import_voc(tmp_path / "more", tmp_path / "more", name="n", synthetic=True).table
    rows = rows.drop(columns="pixels_sha256").assign(patient_id="more " + rows["patient_id"])
    write_cohort(tmp_path / "more", rows, name="more", source="test", synthetic=True)
    more = (f"--data.cohort={tmp_path / 'more'}", "--trainer.max_epochs=1")
    done = train("fit", phantom.folder, tmp_path / "out", *more)
    assert done.returncode == 0, done.stderr
    card = checkpoint.read_card(tmp_path / "out" / "checkpoint").training["cohort"]
    assert card["name"] == "phantom + more"
    assert sum(its["images"] for its in card["mixed_of"].values()) == card["train"]["images"]
    for name, its in card["mixed_of"].items():
        patients = counted(its["patients"], "patient")
        said = f"cohort {name}: to train on {patients}, {its['images']} images, "
        assert said in done.stdout
    assert sum(its["patients"] for its in card["mixed_of"].values()) == card["train"]["patients"]


def test_two_trainings_do_not_write_into_one_folder(phantom: Cohort, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with resume.lock(out):
        done = train("fit", phantom.folder, out)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: --out {out}: another training")
    assert not (out / "config.yaml").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--trainer.max_epoch=1"], "trainer.max_epoch"),
        (["--model.loss.weight=1"], "weight"),
        (["--model.architecture=vgg"], "architecture"),
        (["--model.preprocessing.size=7"], "size"),
        (["--model.heads=[{name: a, target: liver, labels: [n, y]}]"], "target `liver`"),
        (["--model.heads=[]"], "the list is empty"),
        (["--config=none.yaml"], "none.yaml"),
        (["--data.batch_size=0"], "batch_size"),
        (["--data.num_workers=-1"], "num_workers"),
        (["--model.learning_rate=-1"], "learning_rate"),
        (["--model.average_decay=1"], "average_decay"),
        (["--model.operating_point=sensitivity_95"], "operating_point"),
        (["--data.augmentation.flip=1"], "flip"),
        (["--seed_everything=-1"], "-1: give an integer from 0 to 4294967295"),
        (["--seed_everything=4294967296"], "--seed_everything 4294967296: give an integer"),
        (["--seed_everything=false"], "--seed_everything False: give an integer"),
        (["--seed_everything=true"], "--seed_everything is missing: give an integer from 0"),
        (["--trainer.precision=64"], "trainer.precision 64: weights are kept in float32"),
        (["--trainer.precision=bf16-true"], "give 32-true, bf16-mixed or 16-mixed"),
        (["--trainer.overfit_batches=2"], "overfit_batches 2: validation would be of images"),
        (
            ["--trainer.max_epochs=-1", "--trainer.max_time=00:01:00:00"],
            "one_cycle: needs the number of steps; give trainer.max_epochs",
        ),
        (["--trainer.accelerator=gpu"], "No supported gpu backend found"),
        (["--trainer.enable_checkpointing=false"], "enable_checkpointing"),
        (["--keep=best"], "keep"),
        (["--data.folds=3", "--data.fold=4"], "data.fold 4: give the fold to hold out (1, 2, 3)"),
        (["--data.folds=3", "--data.fold=all"], "has figures of folds alone"),
        (["--trainer.default_root_dir=/tmp"], "default_root_dir: is below --out"),
    ],
)
@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_wrong_settings_are_one_line(
    phantom: Cohort,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["sonode"])
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        run(arguments("fit", phantom.folder, out, *wrong))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_a_key_twice_in_a_configuration_is_refused(
    phantom: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sonode"])
    config = tmp_path / "twice.yaml"
    config.write_text("model:\n  loss:\n    margin: 0.1\n    margin: 0.5\n")
    with pytest.raises(UserError, match="line 4: key `margin` is already in line 3"):
        run(arguments("fit", phantom.folder, tmp_path / "out", f"--config={config}"))


def test_no_checkpoint_to_test(phantom: Cohort, tmp_path: Path) -> None:
    done = train("test", phantom.folder, tmp_path)
    assert done.returncode == 2
    assert "has no model.json" in done.stderr


class Remove(Callback):
    """Takes the file of the first weights away once they are read."""

    def on_train_start(self, trainer: object, module: object) -> None:
        Path(module.weights).unlink()  # type: ignore[attr-defined]


class Stop(Callback):
    """What a user may add to a run."""

    def on_train_start(self, trainer: object, module: object) -> None:
        raise UserError("the callback was called")

    def on_test_start(self, trainer: lightning.Trainer, module: object) -> None:
        raise UserError(f"tested in {trainer.precision}")


@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_callbacks_of_the_user_are_called(
    phantom: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sonode"])
    more = ("--trainer.logger=false", "--trainer.callbacks+=tests.train.running.test_cli.Stop")
    with pytest.raises(UserError, match="the callback was called"):
        run(arguments("fit", phantom.folder, tmp_path / "out", *more))
    assert not list(tmp_path.rglob("metrics.csv"))


@pytest.mark.parametrize("given", [None, "32-true"])
@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_the_precision_is_the_machines_unless_given(
    phantom: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.setattr(sys, "argv", ["sonode"])
    monkeypatch.setattr("train.running.cli.best_precision", lambda accelerator: "bf16-mixed")
    monkeypatch.setattr(resume, "forget_untrained", lambda *_: None)  # as after a power cut
    out = tmp_path / "out"
    line = ["--config", str(CONFIGS / "pretrain.yaml"), "--data.cohort", str(phantom.folder)]
    line += ["--model.preprocessing.size=32", "--data.split_seed=4", "--out", str(out)]
    line += [] if given is None else [f"--trainer.precision={given}"]
    with pytest.raises(UserError, match="the callback was called"):
        run(["fit", *line, "--trainer.callbacks+=tests.train.running.test_cli.Stop"])
    # Recorded, so that an interrupted run goes on in the precision that it began with.
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["fit"]["trainer"]["precision"] == (given or "bf16-mixed")


@pytest.mark.filterwarnings("default")  # Lightning's and its dependencies' own
def test_a_test_runs_in_float32_as_evaluate_does(
    trained: Path, phantom: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sonode"])
    monkeypatch.setattr("train.running.cli.best_precision", lambda accelerator: "bf16-mixed")
    line = ["--config", str(CONFIGS / "pretrain.yaml"), "--data.cohort", str(phantom.folder)]
    line += ["--data.split_seed=4", "--out", str(trained)]
    with pytest.raises(UserError, match="tested in 32-true"):
        run(["test", *line, "--trainer.callbacks+=tests.train.running.test_cli.Stop"])


def test_the_weights_are_named_as_they_were_read(
    trained: Path, phantom: Cohort, tmp_path: Path
) -> None:
    first = Path(shutil.copy(trained / "checkpoint" / "weights.safetensors", tmp_path))
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    done = train(
        *("fit", phantom.folder, tmp_path / "out", "--trainer.max_epochs=1"),
        *(f"--model.weights={first}", "--trainer.callbacks+=tests.train.running.test_cli.Remove"),
        "--trainer.enable_progress_bar=true",
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^epoch 1/1 +━", done.stdout, re.M), done.stdout  # its bar
    assert not first.exists()
    card = checkpoint.read_card(tmp_path / "out" / "checkpoint")
    assert card.training["weights"] == f"sha256 {digest}"


def test_validate_reports_its_part(trained: Path, phantom: Cohort) -> None:
    done = train("validate", phantom.folder, trained)
    assert done.returncode == 0, done.stderr
    assert "Validation part" in done.stdout
    assert "malignancy" in done.stdout


def test_another_split_would_test_on_training_patients(trained: Path, phantom: Cohort) -> None:
    done = train("test", phantom.folder, trained, "--data.split_seed=5")
    assert done.returncode == 2
    assert "--data.split_seed 5: the checkpoint was trained with 4" in done.stderr
