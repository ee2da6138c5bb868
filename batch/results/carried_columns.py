"""The types of the columns that manifests bring along: one type for each name, in all runs.

Readers take a column's type from one file of the results, and fail at a file of another type
(pandas, Spark). So a column keeps the type of the first manifest that had it. The values of later
ones are converted to it if none changes: integers, of which pandas makes floats where one is
missing, become integers again. What cannot be converted is refused before anything is scored.

The types are an Arrow schema (`layout.COLUMN_TYPES`).
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from batch import layout
from batch.manifest import column_types
from batch.manifest.files import CHECKED_TOGETHER
from batch.manifest.read import Manifest
from batch.storage import objects
from batch.storage.errors import ObjectMissing, StorageError, as_user_error
from sonode.console import UserError


def agreed(manifest: Manifest, out: str, *, dry: bool) -> Manifest:
    """Give the manifest in the types that `out` has for its columns.

    Columns that are new there are added to them, unless `dry`. Raises UserError for values that do
    not fit, all columns at once, and where the types cannot be read or written.
    """
    uri = objects.join(out, layout.COLUMN_TYPES)
    while True:
        known, etag = _read(uri)
        found = _fitted(manifest, known, out)
        new = [field for field in found.schema if field.name not in known.names]
        if dry or not new:
            return found
        data = pa.schema([*known, *new]).serialize().to_pybytes()
        with as_user_error(f"results cannot be written to {out}"):
            if objects.update(uri, data, etag):
                return found  # else another run has just started


def _read(uri: str) -> tuple[pa.Schema, str | None]:
    try:
        data, etag = objects.read(uri)
        return pa.ipc.read_schema(pa.py_buffer(data)), etag
    except ObjectMissing:
        return pa.schema([]), None
    except StorageError as error:
        raise UserError(f"results cannot be written to {uri}: {error}") from None
    except (pa.ArrowException, OSError):
        raise UserError(
            f"{uri}: not a file that a run wrote; restore it from a backup, or give another OUT"
        ) from None


def _fitted(manifest: Manifest, known: pa.Schema, out: str) -> Manifest:
    spelled = {name.lower(): name for name in known.names}
    faults = [
        f"column {name!r} is {spelled[name.lower()]!r} in the results, and the same "
        "column to DuckDB and Spark; rename it to that"
        for name in manifest.schema.names
        if spelled.get(name.lower(), name) != name
    ]
    types = {field.name: field.type for field in known}
    schema = pa.schema([it.with_type(types.get(it.name, it.type)) for it in manifest.schema])
    changed = [it.name for it in manifest.schema if it.type != schema.field(it.name).type]
    odd = set()
    if changed:
        for table in manifest.tables(CHECKED_TOGETHER):
            odd |= {name for name in changed if not _fits(table[name], types[name])}
    faults += [
        f"column {name!r} is {types[name]} in the results, but here holds "
        f"{manifest.schema.field(name).type} values that cannot be converted"
        for name in sorted(odd)
    ]
    if faults:
        raise UserError(
            f"{out}: the manifest's columns do not match those of the results there; convert or "
            "rename them, or give another OUT",
            faults,
        )
    return replace(manifest, schema=schema)


def _fits(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    if column.null_count == len(column):
        return True
    if not _are_kindred(column.type, kind):
        return False
    try:
        back = column.cast(kind).cast(column.type)
    except pa.ArrowException:
        return False
    return str(back.to_pylist()) == str(column.to_pylist())  # as text: NaN is not equal to itself


def _are_kindred(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether values of one type may be meant as values of the other."""
    both = (one, other)
    if all(map(column_types.is_list, both)):
        return _are_kindred(one.value_type, other.value_type)
    if all(map(pa.types.is_timestamp, both)):
        return (one.tz is None) == (other.tz is None)
    kinds = (column_types.is_number, column_types.is_text, _is_bytes, pa.types.is_date)
    return one == other or any(all(map(kind, both)) for kind in kinds)


def _is_bytes(kind: pa.DataType) -> bool:
    return kind in (pa.binary(), pa.large_binary())
