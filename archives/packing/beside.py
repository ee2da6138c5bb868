"""A file that is written under another name, and renamed when it is complete and on the disk."""

from __future__ import annotations

import glob
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED_S = 3600.0
"""Nobody has written for so long to what a kill has left; another process may write to the rest."""


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


def remove_abandoned(folder: Path, pattern: str = ".*.part") -> None:
    """Remove what kills have left of files that were to come into the folder."""
    for part in folder.glob(pattern):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                part.unlink()


def sync(path: Path) -> None:
    """Have a file's bytes, or the names in a folder, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
