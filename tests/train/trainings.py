"""Training as a user starts it, small enough for a test."""

import subprocess
import sys
from pathlib import Path

from tests.command_line import sonode
from tests.conftest import TRUNK

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
TINY = (f"--model.architecture={TRUNK}", "--model.preprocessing.size=32")
# Under split seed 4 every part of the 14 patients has both classes of both labels.
SMALL = (*TINY, "--trainer.precision=32-true", "--data.batch_size=8", "--data.split_seed=4")


def arguments(
    step: str, cohort: Path, out: Path, *more: object, config: str = "pretrain"
) -> list[str]:
    """What follows `sonode train`."""
    given = ("--config", CONFIGS / f"{config}.yaml", "--data.cohort", cohort, "--out", out)
    return [step, *map(str, (*given, *SMALL, *more))]


def command(
    step: str, cohort: Path, out: Path, *more: object, config: str = "pretrain"
) -> list[str]:
    """All of the line, for a process."""
    line = arguments(step, cohort, out, *more, config=config)
    return [sys.executable, "-m", "sonode", "train", *line]


def train(
    step: str, cohort: Path, out: Path, *more: object, config: str = "pretrain"
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, in this process."""
    return sonode("train", *arguments(step, cohort, out, *more, config=config))


def train_alone(step: str, cohort: Path, out: Path, *more: object) -> None:
    """Run it to its end in a process of its own, whose weights another such has to the last bit."""
    subprocess.run(command(step, cohort, out, *more), check=True)
