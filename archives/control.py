"""What an operator asks of the rollout command that runs: a word in a file of the state folder.

The command alone writes the journal. It looks here several times a second, writes what it makes of
the word, and removes it. `abort` has a file of its own: no later word takes it back, and no step
that comes to its end meanwhile forgets it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

Word = Literal["promote", "pause", "resume", "abort"]


def ask(state: Path, word: Word, step: int) -> None:
    """Ask. `step` is the seq of the step's entry: what comes too late for it is not heeded.

    The later word counts, but nothing takes `abort` back.
    """
    if word == "abort":
        (state / "abort").touch()
        return
    part = state / "control.part"
    part.write_text(json.dumps({"word": word, "step": step}))
    part.replace(state / "control")


def asked(state: Path, step: int) -> Word | None:
    """Return what is asked of the present step, or of the whole rollout."""
    if (state / "abort").exists():
        return "abort"
    found = _read(state)
    word: Word | None = found.get("word")
    if word == "promote" and found["step"] != step:
        clear(state)
        return None
    return word


def clear(state: Path) -> None:
    """Forget a word that is in the journal, or too late; `abort` stays."""
    (state / "control").unlink(missing_ok=True)


def clear_all(state: Path) -> None:
    """Forget all of it: a rollout begins, or goes back."""
    clear(state)
    (state / "abort").unlink(missing_ok=True)


def _read(state: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((state / "control").read_text())
    except FileNotFoundError:
        return {}
    return found
