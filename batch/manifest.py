"""The manifest: which images to score, one a row, checked whole before the first is fetched.

Columns: `image_uri` (required); the RoI as `roi` (a list of four numbers) or as `roi_x_min`,
`roi_y_min`, `roi_x_max`, `roi_y_max`, in pixels of the full frame, absent for the whole frame;
`frame` of a multi-frame object; `etag` that the object must still have. Any other column
(`study_id`, `patient_id`, ...) is carried through to the results.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batch import storage
from batch.manifest_checks import ROI_COLUMNS, problems, roi_of
from batch.storage_errors import ObjectMissing, StorageError
from sonode_console import UserError

_SHOWN = 20


class Request(NamedTuple):
    """What one manifest row asks for."""

    image_uri: str
    """Absolute: relative ones are taken from the manifest's folder."""
    etag: str | None
    fields: dict[str, str]
    """`roi` as "x0,y0,x1,y1" and `frame`, where given, as TorchServe hands them over."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest that has been found sound."""

    table: pa.Table
    folder: str

    def requests(self, start: int, count: int) -> list[Request]:
        """Give the requests of `count` rows from row `start`."""
        known = {"image_uri", "etag", "frame", "roi", *ROI_COLUMNS}
        columns = [name for name in self.table.column_names if name in known]
        requests = []
        for row in self.table.select(columns).slice(start, count).to_pylist():
            fields = {}
            roi = roi_of(row, columns)
            if roi is not None:
                fields["roi"] = ",".join(_number(value) for value in roi)
            if row.get("frame") is not None:
                fields["frame"] = str(int(row["frame"]))
            uri = _absolute(row["image_uri"], self.folder)
            requests.append(Request(uri, row.get("etag") or None, fields))
        return requests

    def buckets(self) -> list[str]:
        """List the buckets that the rows name, as s3:// URIs, sorted."""
        uris = {_absolute(uri, self.folder) for uri in self.table["image_uri"].to_pylist()}
        return sorted({f"s3://{storage.split_s3(uri)[0]}/" for uri in uris if storage.is_s3(uri)})


def digest(table: pa.Table) -> str:
    """Give the SHA-256 of the rows and their schema, whatever row groups held them."""
    # Taking every row lays the values out anew: one chunk, nothing of the file's own layout.
    rows = table.take(pa.array(range(table.num_rows), pa.int64())).replace_schema_metadata(None)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def load(uri: str, *, reserved: Collection[str]) -> Manifest:
    """Read and check a Parquet file, or a folder of them, taken in the order of their names.

    `reserved`: the names of result columns, which no manifest column may have. Raises UserError
    that lists all faults at once.
    """
    table, folder = _read(uri)
    found = list(problems(table, reserved))
    if found:
        more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise UserError(
            f"manifest {uri}: {len(found)} faults to be mended before anything is scored "
            "(the first row is row 0)",
            found[:_SHOWN] + more,
        )
    return Manifest(table=table, folder=folder)


def _read(uri: str) -> tuple[pa.Table, str]:
    try:
        try:
            if uri.endswith("/"):
                raise ObjectMissing  # an S3 "folder" may be an empty object of that very key
            return _parquet(uri), storage.parent(storage.absolute(uri))
        except ObjectMissing:
            files = [file for file in storage.list_files(uri) if file.endswith(".parquet")]
            if not files:
                raise UserError(
                    f"manifest {uri}: neither a Parquet file nor a folder that holds *.parquet"
                ) from None
            return _joined(uri, files), storage.absolute(uri.rstrip("/"))
    except StorageError as error:
        raise UserError(f"manifest {uri}: {error}") from None


def _parquet(uri: str) -> pa.Table:
    try:
        # ParquetFile, not read_table: that one would take a column called `filters` for its own.
        table = pq.ParquetFile(pa.BufferReader(storage.read(uri).data)).read()
        table.validate(full=True)  # text that is no UTF-8 is found here, not in the middle of a run
    except (pa.ArrowException, OSError) as error:
        kind = type(error).__name__
        raise UserError(
            f"manifest {uri}: not a sound Parquet file ({kind}); write it anew"
        ) from None
    return table


def _joined(uri: str, files: list[str]) -> pa.Table:
    tables = [_parquet(file).replace_schema_metadata(None) for file in files]
    first = tables[0].column_names
    for file, table in zip(files, tables, strict=True):
        if odd := set(first) ^ set(table.column_names):
            raise UserError(
                f"manifest {uri}: {PurePosixPath(file).name} and {PurePosixPath(files[0]).name} "
                f"differ in columns {sorted(odd)}; give every file the same"
            )
    try:
        # "default" lets a column that is all null in one file take its type from the others.
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise UserError(f"manifest {uri}: column types differ between its files: {error}") from None


def _absolute(uri: str, folder: str) -> str:
    if storage.is_s3(uri) or PurePosixPath(uri).is_absolute():
        return uri
    return storage.join(folder, uri)


def _number(value: float | None) -> str:
    assert value is not None  # checked before
    return str(int(value)) if value == int(value) else repr(float(value))
