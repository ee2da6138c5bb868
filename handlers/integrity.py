"""The archive's one SHA-256, known from inside the unpacked archive as well.

An archive is a zip in canonical form: members sorted, stored, with one fixed date and mode. Zipping
the unpacked files again therefore gives the archive's own bytes, and a worker that sees only the
unpacked folder can report the digest that `sha256sum` prints for the `.mar`.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO


def write_canonical_zip(folder: Path, stream: IO[bytes]) -> None:
    """Zip all files below `folder`, compiled Python aside, in canonical form."""
    _write(*_files(folder), stream)


def archive_sha256(folder: Path) -> str:
    """The digest of the archive that was unpacked into `folder`."""
    return canonical_sha256(*_files(folder))


def canonical_sha256(names: Iterable[str], read: Callable[[str], bytes]) -> str:
    """The digest of these members in canonical form; `read` gives the bytes of a name."""
    # A real file: without seeking, zipfile writes entries that Java's unzip refuses.
    with tempfile.TemporaryFile() as file:
        _write(names, read, file)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> tuple[list[str], Callable[[str], bytes]]:
    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return names, lambda name: (folder / name).read_bytes()


def _write(names: Iterable[str], read: Callable[[str], bytes], stream: IO[bytes]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(names):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, read(name))
