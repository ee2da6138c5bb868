"""Objects by URI, local path or s3://, with one small surface.

Files are in local_files.py, S3 in s3_objects.py with its client in s3_client.py, what may go wrong
in errors.py, and what is asked of a store before a run in checks.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from batch.storage import listing, local_files, s3_objects
from batch.storage.errors import ObjectChanged, ObjectExists, check_size


class Object(NamedTuple):
    """An object's bytes and its etag: the store's own, or "sha256:<hex>" of a local file."""

    data: bytes
    etag: str


def is_s3(uri: str) -> bool:
    """Whether `uri` names an object store rather than a local path."""
    return uri.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Split s3://bucket/key into (bucket, key); the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def join(folder: str, name: str) -> str:
    """Put `name` (which may hold slashes) below `folder`."""
    return f"{folder.rstrip('/')}/{name}" if is_s3(folder) else str(Path(folder) / name)


def absolute(uri: str) -> str:
    """Make a local path independent of the working directory."""
    return uri if is_s3(uri) else str(Path(uri).absolute())


def parent(uri: str) -> str:
    """Name the folder that holds `uri`."""
    return uri.rpartition("/")[0] if is_s3(uri) else str(Path(uri).parent)


def read(
    uri: str,
    if_match: str | None = None,
    limit: int | None = None,
    admit: Callable[[int], None] = lambda size: None,
) -> Object:
    """Read a whole object; with `if_match`, only if that is still its etag (quoted or not).

    What a store says to be gzip (Content-Encoding) is inflated, within `limit`.

    An object of more than `limit` bytes is refused before its bytes are read, and `admit` is called
    with their number and may wait (it is called again if the store has to be asked again, and not
    at all if the store does not say it).

    Raises ObjectMissing, AccessDenied, ObjectChanged, ObjectTooLarge, ObjectEncoded, StorageError;
    UserError for credentials.
    """
    wanted = None if if_match is None else s3_objects.plain(if_match)
    if is_s3(uri):
        return Object(*s3_objects.read(*split_s3(uri), wanted, limit, admit))
    with local_files.faults(), Path(uri).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        check_size(size, limit)
        admit(size)
        data = file.read()
    etag = local_files.etag(data)
    if wanted not in (None, etag):
        raise ObjectChanged("the object changed after the manifest was written")
    return Object(data, etag)


def fetch(uri: str, path: Path) -> None:
    """Copy a whole object to a local file, a piece at a time. Raises as `read` does."""
    if is_s3(uri):
        s3_objects.fetch(*split_s3(uri), path)
        return
    with local_files.faults():
        shutil.copyfile(uri, path)


def first_bytes(uri: str, count: int) -> bytes:
    """Read the first bytes of an object, fewer where it has fewer. Raises as `read` does."""
    if is_s3(uri):
        return s3_objects.first_bytes(*split_s3(uri), count)
    with local_files.faults(), Path(uri).open("rb") as file:
        return file.read(count)


def etag_of(uri: str, limit: int | None = None) -> str:
    """The object's etag of this moment. Raises as `read` does.

    A local file is read for it, a piece at a time, unless it has more than `limit` bytes.
    """
    if is_s3(uri):
        return s3_objects.etag_of(*split_s3(uri))
    with local_files.faults(), Path(uri).open("rb") as file:
        check_size(os.fstat(file.fileno()).st_size, limit)
        return local_files.etag_of(file)


def exists(uri: str) -> bool:
    """Whether there is an object (not a folder) at `uri`."""
    if is_s3(uri):
        return s3_objects.exists(*split_s3(uri))
    with local_files.faults():
        return Path(uri).is_file()


def list_files(folder: str, *, deep: bool = False) -> list[str]:
    """List the URIs of the objects in `folder`, sorted; none if there is no folder.

    Those directly in it, or with `deep` also those in folders below that have no `_` or `.` before
    their name, which readers of Parquet pass over as well.
    """
    if not is_s3(folder):
        return sorted(listing.files_in(folder, deep=deep))
    bucket, key = split_s3(folder)
    return sorted(f"s3://{bucket}/{found}" for found in listing.keys_in(bucket, key, deep=deep))


def write(uri: str, data: bytes) -> None:
    """Write a whole object: it appears complete or not at all, and replaces an earlier one."""
    if is_s3(uri):
        s3_objects.write(*split_s3(uri), data)
    else:
        local_files.write(Path(uri), data)


def create(uri: str, data: bytes, *, emulated: bool = True) -> None:
    """Write a whole object where there is none; of several that try at once, one succeeds.

    A store that does not know conditions is asked first and then written to, which is safe for a
    single writer alone; without `emulated` it raises ConditionUnknown. Raises ObjectExists, or as
    `read` does.
    """
    if is_s3(uri):
        s3_objects.create(*split_s3(uri), data, emulated=emulated)
    else:
        local_files.create(Path(uri), data)


def replace(uri: str, data: bytes, etag: str, *, emulated: bool = True) -> None:
    """Write a whole object in the place of the one that has this etag; `emulated` as in `create`.

    Raises ObjectChanged where it has another by now, or is gone; else as `read` does.
    """
    if is_s3(uri):
        s3_objects.replace(*split_s3(uri), data, etag, emulated=emulated)
    else:
        local_files.replace(Path(uri), data, etag)


def update(uri: str, data: bytes, etag: str | None) -> bool:
    """Replace the object that has this etag, or with None create one; False if another was faster.

    Raises as `read` does.
    """
    try:
        if etag is None:
            create(uri, data)
        else:
            replace(uri, data, etag)
    except (ObjectExists, ObjectChanged):
        return False
    return True
