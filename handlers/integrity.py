"""The archive's one SHA-256, known from inside the unpacked archive as well.

An archive is a zip in canonical form: members sorted, stored, with one fixed date and mode. Zipping
the unpacked files again therefore gives the archive's own bytes, and a worker that sees only the
unpacked folder can report the digest that `sha256sum` prints for the `.mar`.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path
from typing import IO


def write_canonical_zip(folder: Path, stream: IO[bytes]) -> None:
    """Zip all files below `folder`, compiled Python aside, in canonical form."""
    members = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, members[name].read_bytes())


def archive_sha256(folder: Path) -> str:
    """The digest of the archive that was unpacked into `folder`."""
    # A real file: without seeking, zipfile writes entries that Java's unzip refuses.
    with tempfile.TemporaryFile() as file:
        write_canonical_zip(folder, file)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
