"""Runs of training that end early, and one of two processes."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from model_def import checkpoint
from tests.train.trainings import command, train
from train.cohorts.cohort import Cohort


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_epochs=0"], "no epoch was finished"),
        (["--trainer.limit_val_batches=0"], "validation is switched off"),
        (["--model.learning_rate=1e30"], "training diverged in epoch"),
    ],
)
def test_a_run_that_gives_no_checkpoint(
    phantom: Cohort, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = train("fit", phantom.folder, tmp_path / "out", "--trainer.max_epochs=2", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_ctrl_c_is_not_taken_for_findings(phantom: Cohort, tmp_path: Path) -> None:
    """In a process of its own: a signal here may end the one that runs the tests."""
    line = command("fit", phantom.folder, tmp_path / "out", "--trainer.max_epochs=50")
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stdout if line.startswith("epoch 1/50"))
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert not (tmp_path / "out" / "checkpoint").exists()


class Sigterm(Callback):
    """The flag that Lightning sets at a SIGTERM whose KeyboardInterrupt was lost on the way.

    A finalizer that runs when the signal comes swallows it.
    """

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Set it."""
        trainer._signal_connector.received_sigterm = True


def test_a_sigterm_is_never_a_success(phantom: Cohort, tmp_path: Path) -> None:
    name = f"{Sigterm.__module__}.{Sigterm.__name__}"
    done = train("fit", phantom.folder, tmp_path / "out", f"--trainer.callbacks={name}")
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.slow
def test_two_processes_train_together(phantom: Cohort, tmp_path: Path) -> None:
    line = command(
        *("fit", phantom.folder, tmp_path / "out", "--trainer.max_epochs=2"),
        *("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"),
        "--data.batch_size=4",
    )
    said = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.count("epoch 2/2") == 1
    training = checkpoint.read_card(tmp_path / "out" / "checkpoint").training
    assert (training["epochs"], training["processes"]) == (2, 2)
    # Each takes batches of 4 from its half of the images, the last, partial one left out.
    last = torch.load(tmp_path / "out" / "run" / "last.ckpt", weights_only=True)
    half = training["cohort"]["train"]["images"] // 2
    assert last["global_step"] == 2 * (half // 4)
    done = train("test", phantom.folder, tmp_path / "out")
    assert done.returncode == 0, done.stderr
