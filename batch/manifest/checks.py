"""A manifest's rows: every fault in one line that names row, field and remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_pandas_object

from batch.manifest import column_types
from batch.storage import uris
from sonode.files.parquet import ROI_COLUMNS

LOCATED, NONE_FOUND, NOT_LOCATED = "ok", "none_found", "failed"
NO_ROI = (NONE_FOUND, NOT_LOCATED)
"""What `locate_status` may be beside "ok": the locator found nothing, or could not look."""
_ASKED = ("image_uri", "frame", "roi", *ROI_COLUMNS)
_EXACT = 2.0**53

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def row_problems(table: pa.Table, folder: str, first: int = 0) -> Iterator[str]:
    """Yield one line per fault of the rows, which are counted from `first`.

    `folder`: where relative image_uris begin.

    Lines hold no value that may identify. Columns that `column_types.schema_problems` refuses are
    skipped. Whole columns are checked at once, and row by row only what breaks a rule.
    """
    names = table.column_names
    if "image_uri" in names and column_types.is_text(table["image_uri"].type):
        odd = uris.odd(table["image_uri"])
        suspects = table["image_uri"].filter(pa.array(odd)).to_pylist()
        for row, uri in zip(np.flatnonzero(odd).tolist(), suspects, strict=True):
            if fault := uris.fault(uri, folder):
                yield f"row {first + row}: image_uri {fault}"
    if "frame" in names and column_types.is_number(table["frame"].type, or_null=True):
        for row, fault in _broken(*_frame_rules(table["frame"])):
            yield f"row {first + row}: frame {fault}"
    if "locate_status" in names and column_types.is_text(table["locate_status"].type, or_null=True):
        for row, fault in _broken(_locate_rules(table), []):
            yield f"row {first + row}: locate_status {fault}"
    four = any(name in names for name in ROI_COLUMNS)
    if ("roi" in names) != four and _rois_have_numbers(table):
        for row, fault in _broken(*_roi_rules(table)):
            yield f"row {first + row}: RoI {fault}"


def count_none_found(table: pa.Table) -> int:
    """How many rows have nothing to score since a locator found nothing."""
    if "locate_status" not in table.column_names:
        return 0
    return sum(status == NONE_FOUND for status in table["locate_status"].to_pylist())


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


def _broken(
    rules: Sequence[tuple[Mask, str]], values: Sequence[Floats]
) -> Iterator[tuple[int, str]]:
    """Yield each row that breaks a rule, with that rule's message and the row's values in it."""
    for row in np.flatnonzero(np.any([broken for broken, _ in rules], axis=0)).tolist():
        message = next(message for broken, message in rules if broken[row])
        yield row, message.format(*(f"{value[row]:.16g}" for value in values))


def _frame_rules(column: pa.ChunkedArray) -> tuple[list[tuple[Mask, str]], list[Floats]]:
    frame, given = _floats(column), np.asarray(column.is_valid())
    sound = (frame >= 0) & (frame == np.floor(frame)) & np.isfinite(frame)
    return [(given & ~sound, "{0} must be a non-negative integer")], [frame]


def _locate_rules(table: pa.Table) -> list[tuple[Mask, str]]:
    """What a status must not be: a row with another one, or without, would be scored whole."""
    status = table["locate_status"].cast(pa.string())
    without = np.asarray(pc.is_in(status, pa.array(NO_ROI)))
    known = without | np.asarray(pc.is_in(status, pa.array([LOCATED])))
    names = [name for name in ("roi", *ROI_COLUMNS) if name in table.column_names]
    has_roi = np.any([without & False, *(np.asarray(table[it].is_valid()) for it in names)], axis=0)
    return [
        (~known, f"must be {LOCATED}, {' or '.join(NO_ROI)}; run sonode locate propose again"),
        (known & ~without & ~has_roi, f"is {LOCATED}, but there is no RoI; give it one"),
        (without & has_roi, f"says that there is no RoI, but there is one; write {LOCATED} there"),
    ]


def _roi_rules(table: pa.Table) -> tuple[list[tuple[Mask, str]], list[Floats]]:
    """What a RoI must not be; the frame's size is unknown here."""
    edges = x_min, y_min, x_max, y_max = _edges(table)
    names = ["roi"] if "roi" in table.column_names else ROI_COLUMNS
    given = np.any([np.asarray(table[name].is_valid()) for name in names], axis=0)
    fraction = np.any([edge != np.floor(edge) for edge in edges], axis=0)
    rules = [
        (
            ~np.all(np.isfinite(edges), axis=0),
            "has to be four finite numbers, or all null for the whole frame",
        ),
        # From there on the conversion to float may have rounded away a fraction.
        (np.any(np.abs(edges) >= _EXACT, axis=0), "({0}, {1}, {2}, {3}) is beyond any image"),
        (fraction, "({0}, {1}, {2}, {3}) is not in whole pixels; round it"),
        ((x_min < 0) | (y_min < 0), "begins at ({0}, {1}), outside the frame"),
        (x_min >= x_max, "is empty: x_min {0} is not below x_max {2}"),
        (y_min >= y_max, "is empty: y_min {1} is not below y_max {3}"),
    ]
    return [(given & broken, message) for broken, message in rules], edges


def _edges(table: pa.Table) -> list[npt.NDArray[np.float64]]:
    """The RoIs' edges in the order of ROI_COLUMNS, NaN for none; empty without such columns."""
    if "roi" not in table.column_names:
        return [_floats(table[name]) for name in ROI_COLUMNS if name in table.column_names]
    column = table["roi"]
    if pa.types.is_null(column.type):
        column = column.cast(column_types.TYPES["roi"])
    return [_floats(pc.list_element(_four(column), index)) for index in range(4)]


def _four(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of four numbers as they are, and nulls for all others."""
    four = pc.equal(pc.list_value_length(column), 4)
    return pc.if_else(four, column, pa.scalar([None] * 4, column.type))


def _rois_have_numbers(table: pa.Table) -> bool:
    if "roi" in table.column_names:
        return column_types.is_number_list(table["roi"].type)
    four = all(name in table.column_names for name in ROI_COLUMNS)
    return four and all(
        column_types.is_number(table[name].type, or_null=True) for name in ROI_COLUMNS
    )


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """The numbers, NaN for null; those beyond 2**53 are rounded."""
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def roi_of(row: dict[str, Any], columns: Collection[str]) -> list[float | None] | None:
    """Give the RoI of a row that has `columns`, in either form; None for the whole frame."""
    if "roi" in columns:
        roi: list[float | None] | None = row["roi"]
        return roi
    values = [row.get(name) for name in ROI_COLUMNS]
    return None if values == [None] * 4 else values
