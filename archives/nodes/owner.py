"""Which gateway a node belongs to: a file in the node's run folder that its gateway keeps fresh.

Two gateways of two `--state` folders would each register what the other unregisters.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from archives.state.clock import CLOCK, since, stamp
from archives.state.files import write_private

FILE = "gateway.json"
_making = threading.Lock()
_ids: dict[Path, str] = {}
FRESH_S = 60.0
"""A gateway that has not renewed its note for that long has lost its nodes."""


def other(run_dir: Path, state: Path) -> str:
    """HOST:FOLDER of another state folder whose gateway has this node; empty: none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((run_dir / FILE).read_text())
        if found["id"] != _id(state) and _age_s(run_dir, state, found) < FRESH_S:
            return str(found["where"])
    return ""


def _age_s(run_dir: Path, state: Path, note: dict[str, Any]) -> float:
    """How old a note is; on the machine that wrote it, setting the clock changes nothing."""
    # The note of an earlier sonode has no clock.
    if CLOCK in note and (age_s := since(note[CLOCK])) is not None:
        return age_s
    # By the clock of the folder's own machine.
    probe = run_dir / f"{FILE}.{_id(state)}"
    probe.touch()
    age_s = probe.stat().st_mtime - (run_dir / FILE).stat().st_mtime
    probe.unlink(missing_ok=True)
    return age_s


def take(run_dir: Path, state: Path) -> str:
    """Take the node for the gateway of `state`, or keep it; returns who has it else, as `other`."""
    if whose := other(run_dir, state):
        return whose
    note = {"id": _id(state), "where": f"{socket.gethostname()}:{state.resolve()}", CLOCK: stamp()}
    with suppress(OSError):  # where only its key file may be read there is no such note
        part = run_dir / f"{FILE}.{_id(state)}.part"
        part.write_text(json.dumps(note) + "\n")
        part.replace(run_dir / FILE)
    return ""


def release(run_dir: Path, state: Path) -> None:
    """Leave the node to whoever comes next."""
    if not other(run_dir, state):
        with suppress(OSError):
            (run_dir / FILE).unlink(missing_ok=True)


def _id(state: Path) -> str:
    path = state / "gateway" / "id"
    with _making:  # each node has a thread that asks
        if not path.exists():  # where somebody has removed it, it stays the same
            write_private(state, path, (_ids.get(state) or secrets.token_hex(8)).encode())
        _ids[state] = path.read_text()
        return _ids[state]
