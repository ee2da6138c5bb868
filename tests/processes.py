"""Which processes are there that concern a folder: to see that a server leaves none behind."""

import time
from pathlib import Path

import psutil


def processes_about(folder: Path) -> list[psutil.Process]:
    """Living processes that name the folder on their command line, or work in or below it."""
    found = []
    for process in psutil.process_iter():
        try:
            named = str(folder) in " ".join(process.cmdline())
            if named or Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except psutil.Error:
            continue  # ended meanwhile, a zombie, or another user's
    return found


def assert_no_process_about(folder: Path) -> None:
    deadline = time.monotonic() + 5  # a killed process takes a moment to go
    while (alive := processes_about(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive == []
