"""Files of a state folder: whose they are, and written whole, also where the disk is full."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import IO

from sonode.console import UserError
from sonode.files.atomic import FULL, sync


def open_own(state: Path, path: Path, flags: int = os.O_APPEND) -> IO[bytes]:
    """Open a file of the state folder to read and write; it is made where there is none.

    Only its owner can read it; one that root has made is the owner's, too. Root follows no
    link: the owner's processes, which clients reach, could have it lead to any file.
    """
    root = os.geteuid() == 0
    flags |= os.O_RDWR | os.O_CREAT | (os.O_NOFOLLOW if root else 0)
    file = os.fdopen(os.open(path, flags, 0o600), "w+b")
    if root:
        os.fchown(file.fileno(), owner(state), -1)
    return file


def make_folder(state: Path, folder: Path) -> None:
    """Make a folder of the state folder, for its owner alone; one that root has made, too."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, owner(state), -1, follow_symlinks=False)


@contextmanager
def alone(lock: IO[bytes], taken: str) -> Iterator[None]:
    """Hold the lock, an open file, until the block or the process ends; closes it.

    Raises UserError with the text `taken` where another process holds it.
    """
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(taken) from None
        yield


def owner(state: Path) -> int:
    """The user id of the gateway, by its files: a mounted folder may be root's."""
    listed = state / "clients.json"
    owners = [path.stat().st_uid for path in (state, listed) if path.exists()]
    return next((owner for owner in owners if owner), 0)


def write_private(state: Path, path: Path, data: bytes) -> None:
    """Write a file of the state folder in one step, readable by its owner alone, and durably.

    What root writes is the owner's, too: nginx reads it as that user. On a full disk a file that is
    there is written over in place.
    """
    if not path.parent.exists():
        make_folder(state, path.parent)
    part = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.part")
    try:
        with open_own(state, part, os.O_TRUNC) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it
        part.replace(path)
        sync(path.parent)  # a client that was removed does not come back by one
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno not in FULL or not _fits(path, data):
            raise
        # A token or configuration that cannot be renewed would stop all traffic.
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()


def _fits(path: Path, data: bytes) -> bool:
    """Whether the file's own blocks hold as much: a full disk then does not matter."""
    return path.exists() and len(data) <= path.stat().st_blocks * 512
