"""What makes a manifest sound: every fault in one line that names row, field and remedy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_pandas_object

from batch.storage import uris

ROI_COLUMNS = ("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max")
TYPES = {
    "frame": pa.int64(),
    "roi": pa.list_(pa.float64()),
    **dict.fromkeys(ROI_COLUMNS, pa.float64()),
}
"""Of columns that hold no value; all others are text then."""
_ASKED = ("image_uri", "frame", "roi", *ROI_COLUMNS)
_EXACT = 2.0**53


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


def row_problems(table: pa.Table, folder: str, first: int = 0) -> Iterator[str]:
    """Yield one line per fault of the rows, which are counted from `first`.

    `folder`: where relative image_uris begin.

    Lines hold no value that may identify. Columns that `schema_problems` refuses are passed over.
    Whole columns are looked at first, and row by row only what may be at fault.
    """
    names = table.column_names
    if "image_uri" in names and is_text(table["image_uri"].type):
        for row, uri in _suspects(table["image_uri"], uris.odd(table["image_uri"])):
            if fault := uris.fault(uri, folder):
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


def row_hashes(table: pa.Table, folder: str) -> npt.NDArray[np.uint64]:
    """Give 64 bits for what each row asks to be scored: image, frame and RoI.

    The same whatever the types and the nulls of the other rows, and however the image is named.
    """
    columns: dict[str, Any] = {"uri": uris.same(table["image_uri"], folder).to_pandas()}
    if "frame" in table.column_names:
        columns["frame"] = _floats(table["frame"]) + 0.0  # -0.0 is 0.0
    for name, edge in zip(ROI_COLUMNS, _edges(table), strict=False):  # none: no RoI is given
        columns[name] = edge + 0.0
    hashes = hash_pandas_object(pd.DataFrame(columns), index=False, categorize=False)
    return np.asarray(hashes, np.uint64)


def repeated(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Give the hashes that stand more than once, sorted."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def duplicates(
    tables: Iterable[pa.Table], folder: str, among: npt.NDArray[np.uint64]
) -> Iterator[str]:
    """Yield one line per row that asks for what an earlier row asked for.

    Only rows with a hash `among` these are compared, and whole: equal hashes alone prove nothing.
    """
    if not len(among):
        return
    seen: dict[tuple[object, ...], int] = {}
    first = 0
    for table in tables:
        rows = np.flatnonzero(np.isin(row_hashes(table, folder), among)).tolist()
        names = [name for name in table.column_names if name in _ASKED]
        for row, values in zip(rows, table.select(names).take(rows).to_pylist(), strict=True):
            uri = uris.same_one(values["image_uri"], folder)
            roi = roi_of(values, names)
            asked = (uri, values.get("frame"), None if roi is None else tuple(roi))
            earlier = seen.setdefault(asked, first + row)  # Python takes 7, 7.0, Decimal(7) for one
            if earlier != first + row:
                yield f"row {first + row}: image, frame and RoI are row {earlier}'s; keep one"
        first += table.num_rows


def _suspects(column: pa.ChunkedArray, odd: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Any]]:
    yield from zip(
        np.flatnonzero(odd).tolist(), column.filter(pa.array(odd)).to_pylist(), strict=True
    )


def _odd_frames(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        odd = ~((frames >= 0) & (frames == np.floor(frames)) & np.isfinite(frames))
    return np.asarray(odd, np.bool_)


def _odd_rois(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Rows whose RoI is not plainly sound; among them those with none."""
    edges = _edges(table)
    x_min, y_min, x_max, y_max = edges
    with np.errstate(invalid="ignore"):
        sound = (x_min >= 0) & (y_min >= 0) & (x_min < x_max) & (y_min < y_max)
        whole = np.all([edge == np.floor(edge) for edge in edges], axis=0)
        # Beyond it the conversion to float may have rounded what is not whole.
        odd = ~(sound & whole & (x_max < _EXACT) & (y_max < _EXACT))
    if "roi" in table.column_names:
        lengths = np.asarray(pc.fill_null(pc.list_value_length(table["roi"]), 4))
        odd = odd | (lengths != 4)
    return np.asarray(odd, np.bool_)


def _edges(table: pa.Table) -> list[npt.NDArray[np.float64]]:
    """The RoIs' edges in the order of ROI_COLUMNS, NaN for none; empty without such columns."""
    if "roi" not in table.column_names:
        return [_floats(table[name]) for name in ROI_COLUMNS if name in table.column_names]
    column = table["roi"]
    if pa.types.is_null(column.type):
        column = column.cast(TYPES["roi"])
    return [_floats(pc.list_element(_four(column), index)) for index in range(4)]


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
    """The numbers, NaN for null; those beyond 2**53 are rounded."""
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


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
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(is_kind(kind) for is_kind in kinds)


def _is_number_list(kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in lists) and _is_number(kind.value_type)
