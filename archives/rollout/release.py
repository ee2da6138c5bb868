"""Whether a version on trial may answer clients: a file that the gateway looks at for each request.

To write a configuration, or an entry of the journal, takes room on the disk. To remove a file takes
none: where the disk is full, the old version answers at once all the same. The rollout grants it
before the step's entry is written, and again once there is room, or it is watched, again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from archives.gateway.configuration import RELEASED
from archives.gateway.health import ROOM_BYTES
from archives.state.files import FULL, make_folder, open_own

T = TypeVar("T")

PAGE = 4096
RETRY_S = 2.0


def grant(state: Path) -> None:
    """Let the version on trial answer what the journal gives it. Raises OSError without room."""
    make_folder(state, state / "gateway")
    open_own(state, state / "gateway" / RELEASED).close()


def granted(state: Path) -> bool:
    """Whether it may."""
    return (state / "gateway" / RELEASED).exists()


def take_back(state: Path) -> None:
    """Let the old version answer all from the next request on."""
    (state / "gateway" / RELEASED).unlink(missing_ok=True)


def no_room(state: Path) -> str:
    """Why nothing can be written to the state folder; empty: it can.

    What the gateway would have logged meanwhile is lost, and with it what guards judge by.
    """
    try:
        make_folder(state, state / "gateway")
        with open_own(state, state / "gateway" / "room", os.O_TRUNC) as file:  # shows a quota, too
            file.write(bytes(PAGE))
        if shutil.disk_usage(state).free < ROOM_BYTES:  # the gateway calls that full, too
            return f"--state {state}: the disk is full"
    except OSError as error:
        return f"--state {state}: cannot be written to ({error.strerror})"
    return ""


def once_there_is_room(state: Path, act: Callable[[], T], tell: Callable[[str], None]) -> T:
    """Do what writes to the state folder; where the disk is full, as soon as there is room.

    There is no end to that: the old version answers meanwhile, and whoever starts the command again
    would find the disk as full.
    """
    told = False
    while True:
        try:
            return act()
        except OSError as error:
            if error.errno not in FULL:
                raise
            take_back(state)
            if not told:
                tell(f"--state {state}: the disk is full: make room; the old version answers")
                told = True
            time.sleep(RETRY_S)
