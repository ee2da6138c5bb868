"""Whether a version on trial may answer clients: a file that the gateway looks at for each request.

To write a configuration, or an entry of the journal, takes disk space. To remove a file takes none:
where the disk is full, the old version still answers at once. The rollout grants it before the
step's entry is written, and again once there is space, or a rollout command runs, again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from archives.gateway.configuration.render import RELEASED
from archives.gateway.health import FREE_BYTES
from archives.state.files import make_folder, open_own
from sonode.files.atomic import FULL

T = TypeVar("T")

PAGE = 4096
RETRY_S = 2.0


def grant(state: Path) -> None:
    """Let the version on trial answer its share. Raises OSError where the disk is full."""
    make_folder(state, state / "gateway")
    open_own(state, state / "gateway" / RELEASED).close()


def granted(state: Path) -> bool:
    """Whether it may."""
    return (state / "gateway" / RELEASED).exists()


def take_back(state: Path) -> None:
    """Let the old version answer all from the next request on."""
    (state / "gateway" / RELEASED).unlink(missing_ok=True)


def disk_fault(state: Path) -> str:
    """Why nothing can be written to the state folder; empty: it can.

    What the gateway would have logged meanwhile is lost, and with it what guards judge by.
    """
    try:
        make_folder(state, state / "gateway")
        with open_own(
            state, state / "gateway" / "disk_probe", os.O_TRUNC
        ) as file:  # shows a quota, too
            file.write(bytes(PAGE))
        if shutil.disk_usage(state).free < FREE_BYTES:  # the gateway calls that full, too
            return f"--state {state}: the disk is full"
    except OSError as error:
        return f"--state {state}: cannot be written to ({error.strerror})"
    return ""


def retry_while_full(state: Path, act: Callable[[], T], report: Callable[[str], None]) -> T:
    """Do what writes to the state folder; while the disk is full, try again, without a limit.

    The old version answers meanwhile, and a restarted command would find the disk as full.
    """
    reported = False
    while True:
        try:
            return act()
        except OSError as error:
            if error.errno not in FULL:
                raise
            take_back(state)
            if not reported:
                report(f"--state {state}: the disk is full: free space; the old version answers")
                reported = True
            time.sleep(RETRY_S)
