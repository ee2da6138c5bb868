"""Open an archive and drive its own service, the same object that TorchServe drives."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from archives.errors import ArchiveError

MANIFEST = "MAR-INF/MANIFEST.json"
CODE = ("service", "handlers", "model_def")  # top-level modules inside an archive


class Outcome(NamedTuple):
    """A row's HTTP-like status (200 is success) and body; see `handlers.responses`."""

    status: int
    body: dict[str, Any]


class LoadedArchive:
    """A verified archive whose service is ready in this process."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.name: str = service.model.name
        self.version: str = service.model.version
        self.sha256: str = service.model.sha256
        self.engine: str = service.model.engine
        self.heads: dict[str, tuple[str, ...]] = dict(service.head_labels)
        self.methods: list[str] = list(service.methods)

    def score(self, rows: Sequence[dict[str, Any]]) -> list[Outcome]:
        """Score request rows as TorchServe would hand them over; same length, same order."""
        return [Outcome(*outcome) for outcome in self.service.score(rows)]


def file_sha256(path: Path) -> str:
    """What `sha256sum` prints for the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_members(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The archive's MANIFEST and model card, without running any of its code.

    Raises:
        ArchiveError: no archive of sonode, or a damaged one.
    """
    with _opened(path) as archive:
        return json.loads(archive.read(MANIFEST)), json.loads(archive.read("model.json"))


@contextmanager
def load_archive(path: Path) -> Iterator[LoadedArchive]:
    """Verify the archive, unpack it, and start its own service until the block ends.

    Every byte is checked: contents by the zip's checksums, everything else by the canonical form,
    in which the service computes the digest that the file must have. The golden examples must
    reproduce. One archive at a time per process: its code takes the names `handlers` and
    `model_def`, and gives them back at the end.

    Raises:
        ArchiveError: absent, damaged, altered, or unable to reproduce its golden examples.
    """
    folder = Path(tempfile.mkdtemp(prefix="sonode-archive-"))
    try:
        with _opened(path) as archive:
            archive.extractall(folder)
        with load_folder(folder) as loaded:
            if loaded.sha256 != file_sha256(path):
                raise ArchiveError(
                    f"ARCHIVE {path.name}: altered since it was packed (not in canonical form); "
                    "get it again or pack it anew"
                )
            yield loaded
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def load_folder(folder: Path) -> Iterator[LoadedArchive]:
    """Start the service of an unpacked archive.

    Raises:
        ArchiveError: its code cannot be imported, or its service refuses to start.
    """
    outside = _take_modules()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        try:
            service = importlib.import_module("service").ScoringService()
            manifest = json.loads((folder / MANIFEST).read_text())
            service.initialize(
                SimpleNamespace(
                    manifest=manifest,
                    system_properties={"model_dir": str(folder), "gpu_id": 0},
                )
            )
        except Exception as error:  # whatever an archive's own code may raise
            raise ArchiveError(f"ARCHIVE: its service does not start: {error}") from error
        yield LoadedArchive(service)
    finally:
        sys.path.remove(str(folder))
        _take_modules()
        sys.modules.update(outside)


def _take_modules() -> dict[str, ModuleType]:
    """Remove the archive's module names from `sys.modules` and return what stood there."""
    names = [name for name in sys.modules if name.split(".")[0] in CODE]
    return {name: sys.modules.pop(name) for name in names}


# A flipped bit in a header shows as any of these, depending on the field that it hits.
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive as a zip whose members are safe to unpack."""
    if not path.is_file():
        raise ArchiveError(f"ARCHIVE {path}: no such file; pack one with `sonode pack`")
    damaged = f"ARCHIVE {path.name}: damaged or altered; get it again or pack it anew"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if MANIFEST not in names or "model.json" not in names:
                raise ArchiveError(
                    f"ARCHIVE {path.name}: not an archive of sonode; pack one with `sonode pack`"
                )
            if any(name.startswith("/") or ".." in Path(name).parts for name in names):
                raise ArchiveError(damaged)
            if archive.testzip() is not None:
                raise ArchiveError(damaged)
            yield archive
    except _DAMAGE as error:
        raise ArchiveError(damaged) from error
