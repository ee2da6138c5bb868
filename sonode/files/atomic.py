"""Temporary files and folders, and the removal of what a killed command has left of them.

A file is written under another name, and renamed when it is complete and on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sonode.console import UserError

ABANDONED_S = 3600.0
"""Nobody has written for so long to what a kill has left; another process may write to the rest."""

FULL = (errno.ENOSPC, errno.EDQUOT)


def remedy_of(error: OSError) -> str:
    """What a message about the error ends with: for a full disk what to do, else nothing."""
    return "; free space and re-run the same command" if error.errno in FULL else ""


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Yield an empty file in the target's folder, for one process alone; it is gone at the end.

    Whoever writes it gives it the target's name, after `sync`. What kills have left of earlier ones
    is removed.
    """
    remove_abandoned(target.parent, f".{glob.escape(target.name)}-*.part")
    handle, name = tempfile.mkstemp(".part", f".{target.name}-", target.parent)
    os.close(handle)
    part = Path(name)
    try:
        part.chmod(0o644)
        yield part
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is there complete or not at all."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def remove_abandoned(folder: Path, pattern: str = ".*.part") -> None:
    """Remove what kills have left of files that were to come into the folder."""
    for part in folder.glob(pattern):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                part.unlink()


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """Yield a temporary folder; it is gone at the end, and those that kills have left with it."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # another user's, or another process's
            age_s = time.time() - left.lstat().st_mtime
            if age_s > ABANDONED_S and left.lstat().st_uid == os.geteuid():
                with _lock(left):
                    shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        with _lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_new(out: Path, *, in_place: bool = False) -> None:
    """Raise UserError unless the folder OUT of a command is new, or empty, and can be made.

    A command asks this first: what it has worked for must have a place at its end. `in_place`: it
    writes into OUT itself, which may be a container's mounted volume.
    """
    if str(out).startswith("s3:"):
        raise UserError(f"OUT {out}: give a local folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"OUT {out}: is not empty; give a new folder")
    above = out.absolute().parents
    within = next(it for it in ((out, *above) if in_place else above) if it.exists())
    if within.is_dir() and not os.access(within, os.W_OK | os.X_OK):
        raise UserError(f"OUT {out}: no right to write into {within}; give another folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` at the end of the block, or is removed where that fails.

    Raises UserError where `out` is in use.
    """
    check_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield staged
        staged.chmod(0o755)
        os.replace(staged, out)  # noqa: PTH105 - an empty folder may be there
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Have a file's bytes, or the names in a folder, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
