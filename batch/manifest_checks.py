"""What makes a manifest sound: every fault in one line that names row, field and remedy."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from batch import storage

ROI_COLUMNS = ("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def problems(table: pa.Table, reserved: Collection[str]) -> Iterator[str]:
    """Yield one line per fault: row number, field, remedy; no value that may identify."""
    names = table.column_names
    for name, times in Counter(names).items():
        if times > 1:
            yield f"column {name!r} stands {times} times; keep one"
        if name in reserved:
            yield f"column {name!r} is the name of a result column; rename it"
    if len(set(names)) < len(names):
        return
    if "image_uri" not in names:
        yield f"no column 'image_uri'; rename one of {names}, or add it"
    elif not _is_text(table["image_uri"].type):
        yield f"column 'image_uri' holds {table['image_uri'].type}; write it as string"
    else:
        for row, uri in enumerate(table["image_uri"].to_pylist()):
            if fault := _uri_fault(uri):
                yield f"row {row}: image_uri {fault}"
    if "etag" in names and not _is_text(table["etag"].type, or_null=True):
        yield f"column 'etag' holds {table['etag'].type}; write it as string"
    if "frame" in names:
        yield from _frame_problems(table["frame"])
    yield from _roi_problems(table)


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


def _frame_problems(column: pa.ChunkedArray) -> Iterator[str]:
    if not _is_number(column.type, or_null=True):
        yield f"column 'frame' holds {column.type}; write it as a whole number"
        return
    for row, frame in enumerate(column.to_pylist()):
        if frame is not None and not (math.isfinite(frame) and frame == int(frame)):
            yield f"row {row}: frame {frame} is not a whole number"


def _roi_problems(table: pa.Table) -> Iterator[str]:
    names = table.column_names
    given = [name for name in ROI_COLUMNS if name in names]
    if "roi" in names and given:
        yield f"both 'roi' and {given} are there; keep one form of the RoI"
        return
    if given and len(given) < 4:
        missing = [name for name in ROI_COLUMNS if name not in names]
        yield f"columns {given} without {missing}; give all four or none"
        return
    sound = True
    for name in given:
        if not _is_number(table[name].type, or_null=True):
            sound = False
            yield f"column {name!r} holds {table[name].type}; write it as a number"
    if "roi" in names and not _is_number_list(table["roi"].type):
        sound = False
        yield f"column 'roi' holds {table['roi'].type}; write it as a list of four numbers"
    if not sound or not (given or "roi" in names):
        return
    columns = given or ["roi"]
    for row, values in enumerate(table.select(columns).to_pylist()):
        if fault := _roi_fault(roi_of(values, columns)):
            yield f"row {row}: RoI {fault}"


def _roi_fault(roi: list[float | None] | None) -> str | None:
    """Say what is wrong with `roi` as [x_min, y_min, x_max, y_max]; the frame is unknown here."""
    if roi is None:
        return None
    numbers = [value for value in roi if value is not None and math.isfinite(value)]
    if len(roi) != 4 or len(numbers) != 4:
        return "has to be four finite numbers, or all null for the whole frame"
    x_min, y_min, x_max, y_max = numbers
    if x_min < 0 or y_min < 0:
        return f"begins at ({x_min}, {y_min}), outside the frame"
    if x_min >= x_max:
        return f"is empty: x_min {x_min} is not below x_max {x_max}"
    if y_min >= y_max:
        return f"is empty: y_min {y_min} is not below y_max {y_max}"
    return None


def roi_of(row: dict[str, Any], columns: Collection[str]) -> list[float | None] | None:
    """Give the RoI of a row that has `columns`, in either form; None for the whole frame."""
    if "roi" in columns:
        roi: list[float | None] | None = row["roi"]
        return roi
    values = [row.get(name) for name in ROI_COLUMNS]
    return None if values == [None] * 4 else values


def _is_text(kind: pa.DataType, *, or_null: bool = False) -> bool:
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
