"""Archives in a node's model store: copied completely, and identified by their digest."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Collection
from pathlib import Path

from archives.packing.members import file_sha256
from archives.state.journal import Release
from sonode.console import UserError
from sonode.files.atomic import beside, remove_abandoned, sync

SPARE_BYTES = 32_000_000  # what a service may write beside its unpacked archive


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


def _unpacked_bytes(archive: Path) -> int:
    """What its files take on a disk; of what is no archive, its own size."""
    try:
        with zipfile.ZipFile(archive) as packed:
            return sum(item.file_size for item in packed.infolist())
    except (zipfile.BadZipFile, OSError):
        return archive.stat().st_size


def no_space(folder: Path, archive: Path, what: str) -> str:
    """Why the archive cannot be unpacked and started in the folder; empty: it can.

    `what` names it in that text.
    """
    free = shutil.disk_usage(folder).free
    needed = _unpacked_bytes(archive) + SPARE_BYTES
    if free >= needed:
        return ""
    return f"{folder} has {free / 1e6:.0f} MB free, but {what} needs {needed / 1e6:.0f} MB"


def is_other(release: Release, path: Path) -> bool:
    """Whether the file has other bytes than the release; False where it is missing."""
    return path.exists() and file_sha256(path) != release.sha256


def remove_old(folder: Path, named: Collection[str], needed: Collection[str]) -> list[str]:
    """Remove the archives of `named` that are not `needed`, and copies that a kill has left.

    Files that are not `named` are left alone. Returns the names that were removed.
    """
    old = sorted(name for name in set(named) - set(needed) if (folder / name).is_file())
    for name in old:
        (folder / name).unlink(missing_ok=True)
    remove_abandoned(folder)
    return old


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that `target` is never there in part, whatever ends this; in its folder.

    A copy of root's belongs to whom the folder belongs to. Others may copy the same at once: the
    rollout and the gateway, or two nodes with one store.
    """
    with beside(target) as part:
        shutil.copyfile(source, part)
        if os.geteuid() == 0:
            owner = target.parent.stat()
            os.chown(part, owner.st_uid, owner.st_gid)
        sync(part)  # the journal, which names it, is synced, too
        part.replace(target)
        sync(target.parent)
