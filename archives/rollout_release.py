"""Whether a version on trial may answer clients: a file that the gateway looks at for each request.

To write a configuration, or an entry of the journal, takes room on the disk. To remove a file takes
none: where the disk is full, the old version answers at once all the same. The rollout grants it
before the step's entry is written, so one that is not there in such a step was taken back.
"""

from __future__ import annotations

from pathlib import Path

from archives.gateway import RELEASED

PAGE = 4096


def grant(state: Path) -> None:
    """Let the version on trial answer what the journal gives it. Raises OSError without room."""
    (state / "gateway").mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / "gateway" / RELEASED).touch()


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
        (state / "gateway").mkdir(mode=0o700, parents=True, exist_ok=True)
        (state / "gateway" / "room").write_bytes(bytes(PAGE))
    except OSError as error:
        return f"--state {state}: cannot be written to ({error.strerror})"
    return ""
