"""Servers that tests start as processes, and which processes are there that concern a folder."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def listening(command: Sequence[str], port: int) -> Iterator[None]:
    """Run a server from when its port on loopback takes connections to the end of the block."""
    process = subprocess.Popen(command)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, f"{command[0]} has ended"
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


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
