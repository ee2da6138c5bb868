"""The README tells the truth: its steps run as they stand, its commands and links exist."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archives.java import claim_ports
from tests.command_line import ROOT, sonode

README = (ROOT / "README.md").read_text()
STEPS = README.split("## Step by step")[1].split("\n## ")[0]


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(command: list[str] | str, cwd: Path, *, ending: int = 0) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        shell=isinstance(command, str),
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ending, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


SMALL = ["--trainer.max_epochs", "1", "--model.preprocessing.size", "32"]  # the last one counts


def small(line: str, cwd: Path) -> str:
    """The command in this process; training takes one epoch over smaller images."""
    words = shlex.split(line)[1:]
    done = sonode(*words, *(SMALL if words[0] == "train" else []), cwd=cwd)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "call", [pytest.param(small, id="small"), pytest.param(run, marks=pytest.mark.slow, id="whole")]
)
def test_the_steps_run_as_they_stand(short_path: Path, call: Callable[[str, Path], str]) -> None:
    """Each step works on what those before it left."""
    (short_path / "train").symlink_to(ROOT / "train")
    said = {}
    for language, text in blocks(STEPS):
        if language == "bash":
            continue  # needs an extra that the tests do not
        if language == "python":
            run([sys.executable, "-c", text], short_path)
            continue
        for line in text.strip().splitlines():
            if line.startswith("sonode serve"):
                serve_and_call(line, short_path)
            else:
                said[line.split()[1]] = call(line, short_path)
    assert "verified    every byte" in said["inspect"]
    assert "failed                   0" in said["score"]
    scores = short_path / "work" / "scores"
    assert len(list(scores.glob("date=*/model=breast_us-1.0/part-*.parquet"))) == 1
    assert len(list(scores.glob("_runs/date=*/model=breast_us-1.0/run.json"))) == 1
    assert len(list((scores / "_heatmaps").glob("*.png"))) > 100


def serve_and_call(line: str, folder: Path) -> None:
    """`sonode serve` on free ports, the call that it prints, and Ctrl-C."""
    ports = claim_ports({"inference": None, "management": None, "metrics": None})
    options = " ".join(f"--{api}-port={port}" for api, port in ports.items())
    image = next((folder / "work" / "cohort" / "images").glob("*.png"))
    with subprocess.Popen(
        [sys.executable, "-m", *f"{line} {options}".split()],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            call = next(text for text in process.stdout if "curl" in text)
            answer = run(call.strip().replace("image.png", str(image)), folder)
            assert set(json.loads(answer)["heads"]) == {"malignancy", "alnm"}
        finally:
            process.terminate()
            rest = process.stdout.read()
    assert (process.returncode, rest.splitlines()[-1]) == (0, "stopped")


COMMANDS = sorted(set(re.findall(r"^sonode ([a-z-]+(?: [a-z]+\b(?= [A-Z]))?)", README, re.M)))


def test_it_shows_every_command() -> None:
    assert {command.split()[0] for command in COMMANDS} == {
        *("phantom", "import", "describe", "train", "evaluate", "ablate", "margin"),
        *("radiomics", "versus"),
        *("pack", "inspect", "serve", "gateway", "gateway-token", "predict"),
        *("compare", "score", "demo", "rollout"),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_exists(command: str) -> None:
    assert sonode(*command.split(), "--help").returncode == 0


def test_each_make_target_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make (\w+)", README, re.M))
    assert {"demo", "test", "check", "fuzz", "bench", "soak", "kills", "rollouts"} == named
    assert named <= targets


def test_each_folder_and_file_of_the_table_exists() -> None:
    table = README.split("## The rooms")[1]
    names = re.findall(r"`([\w./]+(?:/|\.py|\.properties))`", table)
    assert len(names) > 8
    assert [name for name in names if not (ROOT / name).exists()] == []
