import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sonode.console import UserError, progress, table


def test_progress_gives_every_item_in_order() -> None:
    assert list(progress(iter("abc"), total=3, what="letters")) == ["a", "b", "c"]


def progress_said(seconds: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What 40 items of so many seconds each say where no terminal is."""
    clock = [0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: clock[0])
        for _ in progress(range(40), total=40, what="images"):
            clock[0] += seconds
    return capsys.readouterr().err.splitlines()


def test_progress_without_a_terminal_is_a_line_a_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    said = progress_said(3600, capsys)
    assert said == [f"images: {4 * n} of 40 ({10 * n} %)" for n in range(1, 11)]


def test_progress_that_is_soon_over_says_little(capsys: pytest.CaptureFixture[str]) -> None:
    said = progress_said(1, capsys)  # 4 s a tenth: a line after 10 s
    assert said == [f"images: {n} of 40 ({n * 5 // 2} %)" for n in (10, 20, 30, 40)]


def test_a_table_shows_brackets_as_they_are_and_cuts_no_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table("T", ("roi", *map(str, range(14))), [("[1, 2]",), ("[red]", *["undefined"] * 14)])
    said = capsys.readouterr().out
    assert "[1, 2]" in said
    assert "[red]" in said
    assert "…" not in said


def test_an_error_keeps_its_details() -> None:
    assert UserError("two faults", ["a", "b"]).details == ["a", "b"]


def test_a_command_ends_with_the_one_that_runs_it_even_if_that_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "from sys import argv; from sonode.console import run_sonode; run_sonode(argv[1:])"
    long = ["phantom", str(out), "--patients", "5000"]
    parent = subprocess.Popen([sys.executable, "-c", code, *long], stdout=subprocess.PIPE)
    child = None
    try:
        while not list(out.glob("**/*.png")):
            assert parent.poll() is None
            time.sleep(0.1)
        child = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
        parent.kill()
        parent.communicate(timeout=60)  # until nobody holds its output
    finally:
        parent.kill()
        if child is not None:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
