"""What lies in a node's model store: archives, copied there whole and known by their digest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from archives.packing.loader import file_sha256
from archives.state.journal import Release
from sonode.console import UserError


def deliver(release: Release, source: Path, store: Path, node: str) -> None:
    """Copy the release's archive into the store of a node, if it is not there, in one step.

    Raises UserError where the archive here, or one of that name there, is another one, and where
    the store cannot be written to.
    """
    target = store / release.file
    if target.exists():
        if file_sha256(target) != release.sha256:
            raise UserError(
                f"node {node}: {release.file} in its store is not the release's (sha256 "
                f"{release.sha256[:12]}): remove it there, or give the new one its own version"
            )
        return
    if not source.is_file() or file_sha256(source) != release.sha256:
        raise UserError(
            f"{source} is not the release's archive (sha256 {release.sha256[:12]}): put it back"
        )
    try:
        copy_whole(source, target)
    except OSError as error:
        raise UserError(
            f"node {node}: its store cannot be written to ({error.strerror})"
        ) from error


def is_other(release: Release, path: Path) -> bool:
    """Whether the file has other bytes than the release; one that is not there tells nothing."""
    return path.exists() and file_sha256(path) != release.sha256


def remove_old(folder: Path, named: Collection[str], needed: Collection[str]) -> list[str]:
    """Remove the archives of `named` that are not `needed`, and copies that a kill has left.

    Files that are not `named` are somebody else's. Returns the names that were removed.
    """
    old = sorted(name for name in set(named) - set(needed) if (folder / name).is_file())
    for path in [*(folder / name for name in old), *folder.glob(".*.part")]:
        path.unlink(missing_ok=True)
    return old


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that `target` is never there in part, whatever ends this; in its folder.

    What a kill has left of an earlier copy is removed. A copy of root's belongs to whom the folder
    belongs to.
    """
    for left in target.parent.glob(f".{target.name}-*.part"):
        left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(".part", f".{target.name}-", target.parent)
    try:
        with os.fdopen(handle, "wb") as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
            if os.geteuid() == 0:
                owner = target.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            os.fsync(file.fileno())  # the journal, which names it, is synced, too
        Path(name).chmod(0o644)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
