"""What makes a manifest sound: every fault in one line that names row, field and remedy."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_pandas_object

from batch import storage

ROI_COLUMNS = ("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max")
_ASKED = ("image_uri", "frame", "roi", *ROI_COLUMNS)
TYPES = {
    "frame": pa.int64(),
    "roi": pa.list_(pa.float64()),
    **dict.fromkeys(ROI_COLUMNS, pa.float64()),
}
"""Of columns that hold no value; all others are text then."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def schema_problems(schema: pa.Schema, reserved: Collection[str]) -> Iterator[str]:
    """Yield one line per fault of the columns' names and types."""
    names = schema.names
    for name, times in Counter(names).items():
        if times > 1:
            yield f"column {name!r} stands {times} times; keep one"
        if name.lower() in {other.lower() for other in reserved}:
            yield f"column {name!r} is the name of a result column; rename it"
    for lowered, times in Counter(name.lower() for name in set(names)).items():
        if times > 1:
            alike = sorted(name for name in set(names) if name.lower() == lowered)
            yield f"columns {alike} are one column to DuckDB and Spark; rename all but one"
    if len(set(names)) < len(names):
        return
    if "image_uri" not in names:
        yield f"no column 'image_uri'; rename one of {names}, or add it"
    elif not is_text(schema.field("image_uri").type):
        yield f"column 'image_uri' holds {schema.field('image_uri').type}; write it as string"
    if "etag" in names and not is_text(schema.field("etag").type, or_null=True):
        yield f"column 'etag' holds {schema.field('etag').type}; write it as string"
    if "frame" in names and not _is_number(schema.field("frame").type, or_null=True):
        yield f"column 'frame' holds {schema.field('frame').type}; write it as a whole number"
    yield from _roi_schema_problems(schema)


def _roi_schema_problems(schema: pa.Schema) -> Iterator[str]:
    names = schema.names
    given = [name for name in ROI_COLUMNS if name in names]
    if "roi" in names and given:
        yield f"both 'roi' and {given} are there; keep one form of the RoI"
    elif given and len(given) < 4:
        missing = [name for name in ROI_COLUMNS if name not in names]
        yield f"columns {given} without {missing}; give all four or none"
    else:
        for name in given:
            if not _is_number(schema.field(name).type, or_null=True):
                yield f"column {name!r} holds {schema.field(name).type}; write it as a number"
        if "roi" in names and not _is_number_list(schema.field("roi").type):
            kind = schema.field("roi").type
            yield f"column 'roi' holds {kind}; write it as a list of four numbers"


def row_problems(table: pa.Table, first: int = 0) -> Iterator[str]:
    """Yield one line per fault of the rows, which are counted from `first`.

    Lines hold no value that may identify. Columns that `schema_problems` refuses are passed over.
    Whole columns are looked at first, and row by row only what may be at fault.
    """
    names = table.column_names
    if "image_uri" in names and is_text(table["image_uri"].type):
        for row, uri in _suspects(table["image_uri"], _odd_uris(table["image_uri"])):
            if fault := _uri_fault(uri):
                yield f"row {first + row}: image_uri {fault}"
    if "frame" in names and _is_number(table["frame"].type, or_null=True):
        odd = _odd_frames(_floats(table["frame"]))
        for row, frame in _suspects(table["frame"], odd):
            if frame is not None:
                yield f"row {first + row}: frame {frame} is not a whole number from 0"
    given = [name for name in ROI_COLUMNS if name in names]
    if ("roi" in names) == bool(given) or not _rois_have_numbers(table):
        return
    columns = given or ["roi"]
    suspects = table.select(columns).filter(pa.array(odd_rois := _odd_rois(table)))
    for row, values in zip(np.flatnonzero(odd_rois).tolist(), suspects.to_pylist(), strict=True):
        if fault := _roi_fault(roi_of(values, columns)):
            yield f"row {first + row}: RoI {fault}"


def row_hashes(table: pa.Table) -> npt.NDArray[np.uint64]:
    """Give 64 bits for what each row asks to be scored: image, frame and RoI."""
    columns = {name: table[name] for name in _ASKED if name in table.column_names}
    if "roi" in columns:  # a list cannot be hashed
        columns["roi"] = pa.array([str(roi) for roi in columns["roi"].to_pylist()], pa.string())
    frame = pa.table(columns).to_pandas()
    hashes = hash_pandas_object(frame, index=False, categorize=False)
    return np.asarray(hashes, np.uint64)


def repeated(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Give the hashes that stand more than once, sorted."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def duplicates(tables: Iterable[pa.Table], among: npt.NDArray[np.uint64]) -> Iterator[str]:
    """Yield one line per row that asks for what an earlier row asked for.

    Only rows with a hash `among` these are compared, and whole: equal hashes alone prove nothing.
    """
    seen: dict[tuple[str, ...], int] = {}
    first = 0
    for table in tables:
        rows = np.flatnonzero(np.isin(row_hashes(table), among)).tolist()
        asked = [name for name in _ASKED if name in table.column_names]
        for row, values in zip(rows, table.select(asked).take(rows).to_pylist(), strict=True):
            earlier = seen.setdefault(tuple(map(str, values.values())), first + row)
            if earlier != first + row:
                yield f"row {first + row}: image, frame and RoI are row {earlier}'s; keep one"
        first += table.num_rows


def _suspects(column: pa.ChunkedArray, odd: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Any]]:
    yield from zip(
        np.flatnonzero(odd).tolist(), column.filter(pa.array(odd)).to_pylist(), strict=True
    )


def _odd_uris(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    plain = pc.match_substring_regex(column, r"^([^:\s][^:]*|s3://[^/]+/.+)$")
    odd: npt.NDArray[np.bool_] = np.asarray(pc.invert(pc.fill_null(plain, False)))
    return odd


def _odd_frames(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        odd = ~((frames >= 0) & (frames == np.floor(frames)) & np.isfinite(frames))
    return np.asarray(odd, np.bool_)


def _odd_rois(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Rows whose RoI is not plainly sound; among them those with none."""
    if "roi" not in table.column_names:
        edges = [_floats(table[name]) for name in ROI_COLUMNS]
    else:
        column = table["roi"]
        if pa.types.is_null(column.type):
            return np.zeros(table.num_rows, bool)
        edges = [_floats(pc.list_element(_four(column), index)) for index in range(4)]
    x_min, y_min, x_max, y_max = edges
    with np.errstate(invalid="ignore"):
        sound = (x_min >= 0) & (y_min >= 0) & (x_min < x_max) & (y_min < y_max)
        whole = np.all([edge == np.floor(edge) for edge in edges], axis=0)
        odd = ~(sound & whole & np.isfinite(x_max) & np.isfinite(y_max))
    if "roi" in table.column_names:
        lengths = np.asarray(pc.fill_null(pc.list_value_length(table["roi"]), 4))
        odd = odd | (lengths != 4)
    return np.asarray(odd, np.bool_)


def _four(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of four numbers as they are, and nulls for all others."""
    four = pc.equal(pc.list_value_length(column), 4)
    return pc.if_else(four, column, pa.scalar([None] * 4, column.type))


def _rois_have_numbers(table: pa.Table) -> bool:
    if "roi" in table.column_names:
        return _is_number_list(table["roi"].type)
    four = all(name in table.column_names for name in ROI_COLUMNS)
    return four and all(_is_number(table[name].type, or_null=True) for name in ROI_COLUMNS)


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """The numbers, NaN for null; whole numbers beyond 2**53 are rounded, as any pixel would be."""
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def _uri_fault(uri: str | None) -> str | None:
    if not uri or not uri.strip():
        return "is missing; give every row one"
    if storage.is_s3(uri):
        return None if all(storage.split_s3(uri)) else "is not s3://bucket/key"
    return (
        "has a scheme that is not s3://; give an s3:// URI or a path"
        if _SCHEME.match(uri)
        else None
    )


def _roi_fault(roi: list[float | None] | None) -> str | None:
    """Say what is wrong with `roi` as [x_min, y_min, x_max, y_max]; the frame is unknown here."""
    if roi is None:
        return None
    numbers = [value for value in roi if value is not None and math.isfinite(value)]
    if len(roi) != 4 or len(numbers) != 4:
        return "has to be four finite numbers, or all null for the whole frame"
    x_min, y_min, x_max, y_max = numbers
    if any(value != int(value) for value in numbers):
        return f"({x_min}, {y_min}, {x_max}, {y_max}) is not in whole pixels; round it"
    if x_min < 0 or y_min < 0:
        return f"begins at ({x_min}, {y_min}), outside the frame"
    for axis, low, high in (("x", x_min, x_max), ("y", y_min, y_max)):
        if low >= high:
            return f"is empty: {axis}_min {low} is not below {axis}_max {high}"
    return None


def roi_of(row: dict[str, Any], columns: Collection[str]) -> list[float | None] | None:
    """Give the RoI of a row that has `columns`, in either form; None for the whole frame."""
    if "roi" in columns:
        roi: list[float | None] | None = row["roi"]
        return roi
    values = [row.get(name) for name in ROI_COLUMNS]
    return None if values == [None] * 4 else values


def is_text(kind: pa.DataType, *, or_null: bool = False) -> bool:
    """Tell whether a column of this type holds text; with `or_null`, or nothing at all."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type  # a pandas category
    if pa.types.is_null(kind):
        return or_null
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType, *, or_null: bool = False) -> bool:
    if pa.types.is_null(kind):
        return or_null
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_number_list(kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in lists) and _is_number(kind.value_type)
