"""Local files as objects: they appear whole, one of many creates, one of many replaces."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from batch.storage.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
)
from sonode.files.atomic import remedy_of

# What `link` answers on file systems that have none, as exFAT and SMB. (Where it is the mode that
# does not allow it, a name cannot be changed there either.)
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write(path: Path, data: bytes) -> None:
    """As `storage.write`."""
    with faults(), _partial(path, data) as partial:
        partial.replace(path)


def create(path: Path, data: bytes) -> None:
    """As `storage.create`."""
    exists_already = ObjectExists("the object exists already")
    with faults(), _partial(path, data) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            raise exists_already from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with _locked(path.parent):
                if path.exists():
                    raise exists_already from None
                partial.replace(path)


def replace(path: Path, data: bytes, wanted: str) -> None:
    """As `storage.replace`."""
    with faults(), _partial(path, data) as partial, _locked(path.parent):
        if not path.is_file():
            raise ObjectChanged("the object is gone")
        with path.open("rb") as file:
            if etag_of(file) != wanted:
                raise ObjectChanged("the object has changed")
        partial.replace(path)


def etag(data: bytes) -> str:
    """The digest of a file's bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def etag_of(file: BufferedReader) -> str:
    """As `etag`, of an open file, read a piece at a time."""
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@contextmanager
def faults() -> Iterator[None]:
    """Raise what the file system raises in the block as what `storage_errors` has."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError):
        raise ObjectMissing("there is no such file") from None
    except NotADirectoryError:
        raise ObjectMissing("there is no such file: a folder of its path is a file") from None
    except PermissionError:
        raise AccessDenied("the file's mode does not allow it") from None
    except ValueError:  # a NUL in the name: no file is called that
        raise ObjectMissing("there is no such file: the name is not a file name") from None
    except OSError as error:
        why = f"the file system answered {os.strerror(error.errno or 0)}{remedy_of(error)}"
        raise StorageError(why) from None


@contextmanager
def _partial(path: Path, data: bytes) -> Iterator[Path]:
    """A hidden file beside `path` that holds the bytes, safe on the disk; removed at the end."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name without the bytes
        yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process whatever ends it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
