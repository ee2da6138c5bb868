"""An operator's command to the running rollout, as a file in the state folder.

The rollout alone writes the journal. It reads this file several times a second, records the command
and deletes the file. `abort` instead deletes a file that a running rollout has: that needs no disk
space, no later command undoes it, and no step that ends meanwhile loses it.
"""

from __future__ import annotations

import json
import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from archives.state.files import open_own, write_private

Word = Literal["promote", "pause", "resume", "abort"]

UNDER_WAY = "under_way"


@dataclass(frozen=True)
class Asked:
    """What is asked, and by whom."""

    word: Word
    by: str
    """Empty where the disk was too full for it."""
    step: int
    """The seq of the step's entry; 0 where the disk was too full for it."""


def operator() -> str:
    """The OS user who runs this command; of root's by sudo, the one who called sudo."""
    uid = os.getuid()
    if uid == 0 and (caller := os.environ.get("SUDO_USER")):
        return caller
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # of a container
        return f"uid {uid}"


def ask(state: Path, word: Word, step: int) -> None:
    """Ask. `step` is the seq of the step's entry: a command too late for it is ignored.

    The later command counts, but nothing undoes `abort`.
    """
    text = json.dumps({"word": word, "step": step, "by": operator()})
    if word == "abort":
        with suppress(OSError):  # a full disk
            write_private(state, state / "abort", text.encode())
        (state / UNDER_WAY).unlink(missing_ok=True)
        return
    write_private(state, state / "control", text.encode())


def asked(state: Path, step: int) -> Asked | None:
    """Return what is asked of the present step, or of the whole rollout."""
    if not (state / UNDER_WAY).exists():
        return _read(state / "abort") or Asked("abort", "", 0)
    found = _read(state / "control")
    if found and found.word == "promote" and found.step != step:
        done(state, found)
        return None
    return found


def done(state: Path, read: Asked) -> None:
    """Forget a command that is in the journal, or too late; one that came meanwhile stays."""
    taken = state / "control.taken"
    with suppress(FileNotFoundError):
        (state / "control").replace(taken)
        if _read(taken) not in (None, read):
            with suppress(FileExistsError):  # the latest counts
                (state / "control").hardlink_to(taken)
        taken.unlink()


def clear(state: Path) -> None:
    """Forget any command; `abort` stays."""
    (state / "control").unlink(missing_ok=True)


def begin(state: Path) -> None:
    """Forget all commands: a rollout begins. Raises OSError where the disk is full."""
    clear(state)
    (state / "abort").unlink(missing_ok=True)
    open_own(state, state / UNDER_WAY).close()


def _read(path: Path) -> Asked | None:
    try:
        return Asked(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):  # torn where a disk was full
        return None
