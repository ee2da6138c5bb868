"""The command line as a user meets it: help without waiting, mistakes in one line."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sonode import command_line
from tests.command_line import ROOT, sonode

GROUPS = {
    "Data": ["phantom", "describe", "import"],
    "Train": ["train", "margin"],
    "Evidence": [
        *("evaluate", "external", "checklists", "ablate", "radiomics", "versus", "paper"),
    ],
    "Package": ["pack", "inspect"],
    "Serve": ["serve", "gateway", "gateway-token", "predict", "reader"],
    "Roll out": ["compare", "rollout"],
    "Batch": ["score", "dicom", "locate"],
    "Demo": ["demo"],
}
COMMANDS = [name for names in GROUPS.values() for name in names]
HEAVY = ["torch", "torchvision", "lightning", "captum", "pandas", "pyarrow", "boto3", "PIL"]


def test_help_imports_nothing_heavy() -> None:
    """All in one process, each told apart: what is imported stays."""
    asked = [[], ["--help"], *([name, "--help"] for name in COMMANDS)]
    code = (
        "import contextlib, sys\nfrom sonode import command_line\n"
        f"for arguments in {asked}:\n"
        "    sys.argv = ['sonode', *arguments]\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        command_line.main()\n"
        f"    print('HEAVY', arguments, sorted(set({HEAVY}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    heavy = [line for line in done.stdout.splitlines() if line.startswith("HEAVY")]
    assert heavy == [f"HEAVY {arguments} []" for arguments in asked]
    assert done.stdout.count("Usage: ") == len(asked)


def test_the_exit_code_stands_whatever_destructors_do() -> None:
    """Arrow's threads abort some processes in the destructors that C++ runs last: here one does."""
    code = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)\n"
        "sys.argv = ['sonode', *sys.argv[1:]]\n"
        "from sonode.__main__ import run\n"
        "run()\n"
    )
    for arguments, wanted in (["--help"], 0), (["score"], 2):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == wanted
        assert done.stdout if wanted == 0 else done.stderr


def test_help_names_every_command_under_its_group() -> None:
    found: dict[str, list[str]] = {}
    sections = re.findall(r"^(\S.*):\n((?:  .*\n)+)", sonode("--help").stdout, re.MULTILINE)
    for heading, lines in sections[1:]:  # the first is of the options
        found[heading] = re.findall(r"^  (\S+)", lines, re.MULTILINE)
    assert found == GROUPS


def test_no_line_of_any_help_is_cut_off() -> None:
    commands = [
        [name, *below]
        for name, command in typer.main.get_command(command_line.app).commands.items()
        for below in [[], *([sub] for sub in getattr(command, "commands", ()))]
    ]
    for command in [[], *commands]:
        done = sonode(*command, "--help", environment={"COLUMNS": "80"})
        usage, *lines = done.stdout.splitlines()
        assert done.returncode == 0 and usage.startswith("Usage: "), command
        assert [line for line in lines if line.endswith(("...", "…"))] == [], command
        assert max(map(len, lines)) <= 80, command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such"], "No such command 'no-such'."),
        (["pack"], "Missing argument 'checkpoint'."),
        (["pack", "x", "--name", "n"], "Missing option '--version'."),
        (["score", "m", "o", "--archive", "a", "--fast"], "No such option: --fast"),
        (
            ["score", "m", "o", "--archive", "a", "--dicom", "--executor", "ray"],
            "--dicom: not with --executor ray",
        ),
        (["phantom", "o", "--patients", "none"], "--patients': Input should be a valid integer"),
        (
            ["phantom", "o", "--patients", "0"],
            "--patients': Input should be greater than or equal to 1",
        ),
        (
            ["serve", "--inference-port", "http"],
            "--inference-port': Input should be a valid integer",
        ),
        (["serve", "--inference-port", "70000"], "--inference-port': Input should be less than"),
        (["serve", "--server", "apache"], "--server': 'apache' is not one of"),
        (["serve", "--certificate", "c"], "--certificate, --certificate-key: give both"),
        (["serve", "--rate", "5"], "--rate, --at-once and --state need --gateway-port PORT"),
        (
            ["serve", "--gateway-host", "a b", "--gateway-port", "1"],
            "--gateway-host: String should",
        ),
        (
            ["phantom", "s3://b/x"],
            "s3://b/x: only `sonode score`, `compare`, `dicom` and `locate` take s3://",
        ),
        (["train", "fitt"], "train fitt: unknown step"),
        (["train", "fit", "--config", "no.yaml"], "error: --config: File does not exist: "),
        (["versus", "a", "b", "--json", "."], "--json .: give a file in a folder that is there"),
        (["phantom", ""], "the argument after phantom: is empty (an unset variable?)"),
        (["phantom", "--patients=1", "", "--seed="], "after --patients=1: is empty"),
        (["phantom", "o", "--seed="], "--seed: is empty (an unset variable?)"),
        (["phantom", "o", "--seed=MQ=="], "--seed': Input should be a valid integer"),
        (["inspect", "no-such.mar"], "ARCHIVE no-such.mar: no such file; pack one"),
        (["pack", ".", "--name", "n", "--version", "1"], "CHECKPOINT .: has no model.json"),
        (["demo", "/proc/self/status/x"], "Not a directory"),
        (["phantom", "/proc/self/status/x"], "Not a directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = sonode(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_is_not_taken_for_failed_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("train.importers.phantom.write_phantom", fault)
    done = sonode("phantom", "x", cwd=tmp_path)
    assert done.returncode == 70
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: ours\n")


def test_a_full_disk_has_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("train.importers.phantom.write_phantom", full)
    done = sonode("phantom", "x", cwd=tmp_path)
    words = f"error: {os.strerror(errno.ENOSPC)}; free space and re-run the same command\n"
    assert (done.returncode, done.stderr) == (2, words)


def test_nohup_is_heeded_and_a_background_job_can_be_ended() -> None:
    code = (
        "import os, signal, sys, threading, types\nfrom sonode import command_line\n"
        "for number in (signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
        "def signals(*_):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('went on', flush=True)\n"
        "    both, never = threading.Event(), threading.Event()\n"
        "    def other():\n"  # a process's second signal may go to any thread
        "        both.wait()\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "    threading.Thread(target=other).start()\n"
        "    try:\n"
        "        both.set()\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('and on', flush=True)\n"
        "    finally:\n"
        "        never.wait(1)\n"
        "        print('cleaned up', flush=True)\n"
        "stand_in = types.SimpleNamespace(write_phantom=signals, import_voc=None)\n"
        "faked = ('train.importers.phantom', 'train.importers.table')\n"
        "sys.modules |= dict.fromkeys(faked, stand_in)\n"
        "sys.argv = ['sonode', 'phantom', 'x']\n"
        "command_line.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        130,
        "went on\ncleaned up\n",
        "it stops, and waits for what is under way; "
        "a Ctrl-C 5 s after the first one ends it at once\n"
        "interrupted\n",
    )


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("lightning", "train", ["train", "fit"]),
        ("highdicom", "dicom", ["score", "m.parquet", "out", "--archive=a.mar", "--dicom"]),
        ("dicomweb_client", "dicom", ["dicom", "push", "out", "--to=https://pacs.example"]),
        ("ray", "ray", ["score", "m.parquet", "out", "--archive=a.mar", "--executor=ray"]),
    ],
)
def test_a_missing_extra_is_named(module: str, extra: str, arguments: list[str]) -> None:
    code = (
        "import sys; from sonode import command_line; "
        f"sys.modules['{module}'] = None; command_line.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"{module} is not installed; it is in the extra `{extra}`: pip install" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_is_no_cohort(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    done = sonode("demo", tmp_path / "out", "--cohort", tmp_path / "cohort")
    assert done.returncode == 2
    assert "not a cohort (no cohort.parquet)" in done.stderr
    assert "sonode import" in done.stderr
