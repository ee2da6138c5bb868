"""Secrets of the gateway: its clients' tokens, the key of the study ids' hash, its nodes' tokens.

Small files of the state folder that only their owner reads. nginx reads them at each request (see
`gateway.js`), so a change counts from the next one on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from archives.packing.members import NAME, NAME_RULE
from archives.state.files import open_own, write_private
from sonode.console import UserError
from sonode.files.atomic import remove_abandoned

TOKEN_BYTES = 32
KEY_BYTES = 32  # gateway.js knows it, too
_CLIENTS = TypeAdapter(dict[str, str])


def study_key(state: Path) -> bytes:
    """Return the key of the study ids' hash.

    With another key the hashes of one study no longer agree, nor does its side of a split. Raises
    UserError for one that is missing or of another length.
    """
    path = state / "key"
    key = path.read_bytes() if path.exists() else b""
    if len(key) != KEY_BYTES:
        raise UserError(
            f"{path}: is damaged ({len(key)} bytes, not {KEY_BYTES}): restore it from a backup, or "
            "delete it and restart the gateway for a new key; studies then get other hashes, and "
            "may change version"
        )
    return key


def prepare(state: Path) -> None:
    """Make the files that nginx reads at each request, where they are not there yet.

    Raises UserError as `clients` and `study_key` do, and where the folder is another user's.
    """
    with _alone(state):
        for folder in (state, state / "gateway"):
            remove_abandoned(folder, "*.part")
        if not (state / "key").exists():
            write_private(state, state / "key", secrets.token_bytes(KEY_BYTES))
        if not (state / "clients.json").exists():
            _write_clients(state, {})
    study_key(state)
    clients(state)


def add_client(state: Path, name: str) -> str:
    """Return a new token for this client, which is kept as a digest only; an old one is void.

    A gateway that runs takes it at once. Raises UserError for a name that it could not log, and
    where the folder is another user's.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"NAME {name!r}: {NAME_RULE}")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    with _alone(state):
        _write_clients(state, _known(state) | {name: digest})
    return token


def remove_client(state: Path, name: str) -> None:
    """Void a client's token. Raises UserError where there is no such client, or as `add_client`."""
    if name not in (known := _known(state)):  # before the folder is made
        raise UserError(f"NAME {name}: no such client; there is {', '.join(known) or 'none'}")
    with _alone(state):
        _write_clients(state, {key: kept for key, kept in _known(state).items() if key != name})


def clients(state: Path) -> dict[str, str]:
    """Return the clients: name -> SHA-256 of the token.

    Raises UserError for a file that is missing, that others can read, or that is damaged.
    """
    path = state / "clients.json"
    if not path.exists():
        raise UserError(f"{path}: is missing: restore it from a backup, or make new tokens")
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path}: others may read it; run `chmod 600 {path}`")
    try:
        return _CLIENTS.validate_json(path.read_bytes())
    except ValueError:
        raise UserError(
            f"{path}: is damaged: restore it from a backup, or delete it and make new tokens"
        ) from None


def _known(state: Path) -> dict[str, str]:
    return clients(state) if (state / "clients.json").exists() else {}


def _write_clients(state: Path, known: dict[str, str]) -> None:
    write_private(state, state / "clients.json", json.dumps(known, indent=1).encode())


def write_token(state: Path, node: str, token: str) -> None:
    """Give nginx the node's token; it counts from the next request on."""
    write_private(state, state / "gateway" / f"{node}.token", token.encode())


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Nobody else changes these files meanwhile: a change starts from what is there."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        _refuse_other_users(state)
        lock = open_own(state, state / "clients.lock")
    except PermissionError:
        raise _not_yours(state, state.stat().st_uid) from None
    with lock as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _refuse_other_users(state: Path) -> None:
    listed = state / "clients.json"
    if os.geteuid() and listed.exists() and listed.stat().st_uid != os.geteuid():
        raise _not_yours(listed, listed.stat().st_uid)


def _not_yours(path: Path, owner: int) -> UserError:
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:  # a container's
        name = f"#{owner}"
    return UserError(f"{path}: belongs to {name}: run this as that user, with `sudo -u {name}`")
