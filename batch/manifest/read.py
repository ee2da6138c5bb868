"""The manifest: which images to score, one a row, checked whole before the first is fetched.

Columns: `image_uri` (required); the RoI as `roi` (a list of four numbers) or as `roi_x_min`,
`roi_y_min`, `roi_x_max`, `roi_y_max`, in pixels of the full frame, absent for the whole frame;
`frame` of a multi-frame object; `etag` that the object must still have; of `sonode locate propose`,
`locate_status`: a row without a proposed RoI is not scored on its whole frame. Any other column
(`study_id`, `patient_id`, ...) is carried through to the results, as all of `locate_...` and
`roi_proposed` and `roi_confidence` are.

It is read twice, to check it and to score it, a piece at a time: memory does not grow with it. What
is read is a copy, made at once: whatever becomes of it meanwhile, what was checked is scored.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from batch.manifest import checks, column_types
from batch.manifest import files as manifest_files
from batch.manifest import folder as manifest_folder
from batch.storage import uris
from batch.storage.errors import StorageError
from sonode.console import SHOWN, UserError, counted, first_of
from sonode.files.atomic import scratch
from sonode.files.parquet import ROI_COLUMNS


class Request(NamedTuple):
    """What one manifest row asks for."""

    image_uri: str
    """An absolute path or s3://bucket/key: relative ones are taken from the manifest's folder."""
    etag: str | None
    fields: dict[str, str]
    """`roi` as "x0,y0,x1,y1" and `frame`, where given, as TorchServe hands them over."""
    no_roi: tuple[str, str | None] | None = None
    """Why the locator gave no RoI, so that there is nothing to score: of `checks.NO_ROI`, and the
    code of what failed."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked manifest."""

    files: tuple[Path, ...]
    """Local copies."""
    schema: pa.Schema
    folder: str
    """Where relative image_uris begin."""
    rows: int
    sha256: str
    """Of the rows and their schema, whatever files and row groups held them."""
    buckets: tuple[str, ...]
    """Those that the rows name, as s3:// URIs, sorted."""

    def tables(self, rows: int) -> Iterator[pa.Table]:
        """Read it in tables of `rows` rows each, fewer at the end; of an empty one, one table."""
        return manifest_files.tables(self.files, self.schema, rows)


def requests(table: pa.Table, folder: str) -> list[Request]:
    """Give the requests of manifest rows."""
    known = {"image_uri", "etag", "frame", "roi", *ROI_COLUMNS, *column_types.LOCATE_COLUMNS}
    columns = [name for name in table.column_names if name in known]
    found = []
    for row in table.select(columns).to_pylist():
        fields = {}
        roi = checks.roi_of(row, columns)
        if roi is not None:
            fields["roi"] = ",".join(map(_whole, roi))
        if row.get("frame") is not None:
            fields["frame"] = str(int(row["frame"]))
        uri = uris.absolute(row["image_uri"], folder)
        status = row.get("locate_status")
        no_roi = (status, row.get("locate_code")) if status in checks.NO_ROI else None
        found.append(Request(uri, row.get("etag") or None, fields, no_roi))
    return found


def digest(table: pa.Table) -> str:
    """Give the SHA-256 of the rows and their schema, whatever row groups held them."""
    return hashlib.sha256(encoded(table)).hexdigest()


def encoded(table: pa.Table) -> bytes:
    """Give rows and their schema as an Arrow stream, the same bytes for the same rows."""
    # Taking every row copies the values: one chunk, nothing of the file's own layout.
    rows = table.take(pa.array(range(table.num_rows), pa.int64())).replace_schema_metadata(None)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


@contextmanager
def open_manifest(
    uri: str, *, reserved: Collection[str], out: str | None = None
) -> Iterator[Manifest]:
    """Read and check a Parquet file, or a folder of them, taken in the order of their names.

    `reserved`: the names of result columns, which no manifest column may have. `out`: the folder of
    the results, none of which belongs to the manifest, should it lie there. Raises UserError
    that lists all faults at once. The copies live as long as the block.
    """
    with scratch("sonode-manifest-") as copies:
        try:
            files, folder = manifest_folder.copied(uri, copies, out)
        except StorageError as error:
            full = os.strerror(errno.ENOSPC) in str(error)  # where the copies go
            remedy = ", or set TMPDIR to another folder" if full else ""
            raise UserError(f"manifest {uri}: {error}{remedy}") from None
        try:
            schema = manifest_files.common_schema(uri, files)
            yield _checked(uri, files, schema, folder, reserved)
        except manifest_files.Unsound as error:
            raise UserError(f"manifest {uri}: {error}") from None


class _Faults:
    """The first lines of what is wrong, and how many there are."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def add(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.count += 1
            if self.count <= SHOWN:
                self.lines.append(line)


def _checked(
    uri: str, files: tuple[Path, ...], schema: pa.Schema, folder: str, reserved: Collection[str]
) -> Manifest:
    faults = _Faults()
    faults.add(column_types.schema_problems(schema, reserved))
    readable = "image_uri" in schema.names and len(set(schema.names)) == len(schema.names)
    rows, buckets = 0, set()
    sha256, hashes = hashlib.sha256(), []
    if readable:
        for table in manifest_files.tables(files, schema, manifest_files.CHECKED_TOGETHER):
            faults.add(checks.row_problems(table, folder, first=rows))
            sha256.update(digest(table).encode())
            if not faults.count:  # else no duplicates are looked for
                hashes.append(checks.row_hashes(table, folder))
                buckets |= uris.buckets(table["image_uri"], folder)
            rows += table.num_rows
        if not faults.count:
            again = manifest_files.tables(files, schema, manifest_files.CHECKED_TOGETHER)
            faults.add(checks.duplicates(again, folder, checks.repeated(np.concatenate(hashes))))
    if faults.count:
        raise UserError(
            f"manifest {uri}: {counted(faults.count, 'fault')} to correct before "
            "anything is scored (the first row is row 0)",
            first_of(faults.lines, faults.count),
        )
    return Manifest(
        files=files,
        schema=schema,
        folder=folder,
        rows=rows,
        sha256=sha256.hexdigest(),
        buckets=tuple(sorted(buckets)),
    )


def _whole(value: float | None) -> str:
    assert value is not None and value == int(value)  # checked before
    return str(int(value))
