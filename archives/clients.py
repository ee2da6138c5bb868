"""Secrets of the gateway: its clients' tokens, the key of the study ids' hash, its nodes' tokens.

Small files of the state folder that only their owner reads. nginx reads them at each request (see
`gateway.js`), so a change counts from the next one on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archives.loader import NAME
from sonode_console import UserError

TOKEN_BYTES = 32


def study_key(state: Path) -> bytes:
    """Return the key of the study ids' hash; made at the first call, and kept.

    With another key the hashes of one study no longer agree, nor does its side of a split.
    """
    path = state / "key"
    with _alone(state):
        if not path.exists():
            _write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def prepare(state: Path) -> None:
    """Make the files that nginx reads at each request. Raises UserError as `clients` does."""
    study_key(state)
    with _alone(state):
        if not clients(state):
            _write_clients(state, {})


def add_client(state: Path, name: str) -> str:
    """Return a new token for this client, which is kept as a digest only; an old one is void.

    A gateway that runs takes it at once. Raises UserError for a name that it could not log.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"NAME {name!r}: use letters, digits, dots, dashes, underscores")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    with _alone(state):
        _write_clients(state, clients(state) | {name: digest})
    return token


def remove_client(state: Path, name: str) -> None:
    """Void a client's token. Raises UserError where there is no such client."""
    known = clients(state)
    if name not in known:
        raise UserError(f"NAME {name}: no such client; there is {', '.join(known) or 'none'}")
    with _alone(state):
        _write_clients(state, {key: kept for key, kept in clients(state).items() if key != name})


def clients(state: Path) -> dict[str, str]:
    """Return the clients: name -> SHA-256 of the token.

    Raises UserError for a file that others can read.
    """
    path = state / "clients.json"
    if not path.exists():
        return {}
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path}: others may read it; run `chmod 600 {path}`")
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _write_clients(state: Path, known: dict[str, str]) -> None:
    _write_private(state / "clients.json", json.dumps(known, indent=1).encode())


def write_token(state: Path, node: str, token: str) -> None:
    """Give nginx the node's token; it counts from the next request on."""
    _write_private(state / "gateway" / f"{node}.token", token.encode())


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Nobody else changes these files meanwhile: a change starts from what is there."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state / "clients.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_private(path: Path, data: bytes) -> None:
    """In one step, and for nobody else's eyes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    part.replace(path)
