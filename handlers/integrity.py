"""The archive's one SHA-256, known from inside the unpacked archive as well.

An archive is a zip in canonical form: members sorted, stored, with one fixed date and mode. Zipping
the unpacked files again therefore gives the archive's own bytes, and a worker that sees only the
unpacked folder can report the digest that `sha256sum` prints for the `.mar`.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def write_canonical_zip(folder: Path, stream: IO[bytes]) -> None:
    """Zip all files below `folder`, compiled Python aside, in canonical form."""
    _write(*_files(folder), stream)


def archive_sha256(folder: Path) -> str:
    """The digest of the archive that was unpacked into `folder`."""
    return canonical_sha256(*_files(folder))


def canonical_sha256(names: Iterable[str], read: Callable[[str], bytes]) -> str:
    """The digest of these members in canonical form; `read` gives the bytes of a name."""
    stream = _Hashed()
    _write(names, read, stream, stream.pass_on)
    stream.pass_on()
    return stream.sha256.hexdigest()


class _Hashed(io.RawIOBase):
    """What zipfile writes to a hash: it goes back to an entry's header, so that entry is kept.

    Without going back, zipfile writes entries that Java's unzip refuses.
    """

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self._passed, self._kept = 0, io.BytesIO()

    def pass_on(self) -> None:
        """Hash what is kept: nothing goes back to it any more."""
        self.sha256.update(self._kept.getbuffer())
        self._passed += len(self._kept.getbuffer())
        self._kept = io.BytesIO()

    def write(self, data: ReadableBuffer) -> int:
        return self._kept.write(data)

    def tell(self) -> int:
        return self._passed + self._kept.tell()

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET and position >= self._passed
        return self._passed + self._kept.seek(position - self._passed)


def _files(folder: Path) -> tuple[list[str], Callable[[str], bytes]]:
    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return names, lambda name: (folder / name).read_bytes()


def _write(
    names: Iterable[str],
    read: Callable[[str], bytes],
    stream: IO[bytes] | _Hashed,
    written: Callable[[], object] = lambda: None,
) -> None:
    """Write the members; `written` is called after each."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(names):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, read(name))
            written()
