"""An archive by path or s3:// URI, ready to score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batch.storage import objects
from batch.storage.errors import as_user_error
from sonode.files.atomic import scratch

if TYPE_CHECKING:
    from archives.packing.loader import LoadedArchive


@contextmanager
def open_archive(uri: str, settings: Mapping[str, object]) -> Iterator[LoadedArchive]:
    """Load an archive for the length of the block; `settings` as in `archives.packing.loader`.

    Raises UserError where it cannot be read, ArchiveError where it does not start.
    """
    from archives.packing.loader import load_archive

    with _local_copy(uri) as path, load_archive(path, settings) as archive:
        yield archive


@contextmanager
def _local_copy(uri: str) -> Iterator[Path]:
    """Give an archive as a local file, fetched from S3 for the length of the block if need be."""
    if not objects.is_s3(uri):
        yield Path(uri)
        return
    with as_user_error(f"archive {uri}"):
        data = objects.read(uri).data
    with scratch("sonode-archive-") as folder:
        path = folder / uri.rpartition("/")[2]
        path.write_bytes(data)
        yield path
