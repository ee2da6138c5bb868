"""Training as a user starts it: a process of its own, small enough for a test."""

import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
# Under split seed 4 every part of the 14 patients has both classes of both labels.
SMALL = [
    *("--model.preprocessing.size=32", "--trainer.precision=32-true"),
    *("--data.batch_size=8", "--data.split_seed=4"),
]


def sonode(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sonode", *map(str, arguments)]


def train(
    step: str, cohort: Path, out: Path, *more: object, config: str = "demo"
) -> subprocess.CompletedProcess[str]:
    command = sonode(
        *("train", step, "--config", CONFIGS / f"{config}.yaml"),
        *("--data.cohort", cohort, "--out", out, *SMALL, *more),
    )
    return subprocess.run(command, capture_output=True, text=True, check=False)
