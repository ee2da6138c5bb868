"""An archive's bytes: checked and read without running any of its code."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from handlers.integrity import canonical_sha256
from sonode.console import UserError
from sonode.files.atomic import FULL

MANIFEST = "MAR-INF/MANIFEST.json"
# What torch-model-archiver takes; two of them, and what is added, are the name of a file or folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAME_RULE = "use letters, digits, dots, dashes, underscores, 64 at most"


class ArchiveError(UserError):
    """An archive that cannot be built, read or trusted."""


def file_sha256(path: Path) -> str:
    """What `sha256sum` prints for the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_members(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The archive's MANIFEST and model card, without running any of its code.

    Raises ArchiveError: no archive of sonode, or a damaged one.
    """
    check(path)
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(MANIFEST)), json.loads(archive.read("model.json"))


def read_member(path: Path, name: str) -> bytes:
    """A file of an archive that `read_members` has checked. Raises ArchiveError: it has none."""
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():  # an older version packed fewer
            raise ArchiveError(f"ARCHIVE {path.name}: has no {name}; pack its checkpoint again")
        return archive.read(name)


def check(path: Path) -> None:
    """Refuse all but an archive of sonode, every byte as it was packed; runs none of its code.

    Contents have the zip's checksums; every other byte must be what the canonical form (see
    `handlers.integrity`) gives for these members.

    Raises ArchiveError: absent, something else, damaged or altered.
    """
    if not path.is_file():
        raise ArchiveError(f"ARCHIVE {path}: no such file; pack one with `sonode pack`")
    damaged = ArchiveError(f"ARCHIVE {path.name}: damaged or altered; copy or pack it again")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if MANIFEST not in names or "model.json" not in names:
                raise ArchiveError(
                    f"ARCHIVE {path.name}: not an archive of sonode; pack one with `sonode pack`"
                )
            # No compiled code, which would stand in for what was checked.
            names = [name for name in names if "__pycache__" not in name]
            same = _is_plain(archive, path.stat().st_size) and (
                canonical_sha256(names, archive.read) == file_sha256(path)
            )
    except ArchiveError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise  # no word about the archive
        # A flipped bit in a header can show as almost any.
        raise damaged from error
    if not same:
        raise damaged


def _is_plain(archive: zipfile.ZipFile, size: int) -> bool:
    """Whether its members are stored, no larger than the file's `size`, and of one plain name each.

    Looked at before any is read: compressed or overlapping members could be gigabytes. Of `x//y`,
    `./z` or `dir/` the unpacked folder has another name, so another digest.
    """
    members = archive.infolist()
    names = [PurePosixPath(it.filename) for it in members]
    folders = {parent for name in names for parent in name.parents}
    return (
        all(it.compress_type == zipfile.ZIP_STORED for it in members)
        and all(it.file_size == it.compress_size for it in members)
        and sum(it.file_size for it in members) <= size
        and all(str(it) == member.filename for it, member in zip(names, members, strict=True))
        and not any(it.is_absolute() or ".." in it.parts or "\\" in str(it) for it in names)
        and len({*names}) == len(names)
        and not folders & {*names}
    )
