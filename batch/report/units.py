"""Scores per lesion, study and patient: the mean and the maximum over the rows that share an id.

A row of the manifest is an image with a box. Rows belong together by the columns of `UNITS` that
the manifest has; each such column gives one file (`layout.units`). A failed row has no score, so
that the mean and the maximum are over fewer rows than there are: `n_scored` is under `n_images`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch.manifest.column_types import UNITS, is_text
from batch.results import schema as results
from sonode.files.parquet import file_bytes
from sonode.id_spelling import without_spelling

AGGREGATES = ("mean", "max")
_KEPT = 100_000  # rows of partial sums that are held beside as many units as there are


def keys_of(unit: str, columns: Collection[str]) -> list[str]:
    """The columns whose values together are one unit.

    Another patient may have a lesion of the same id: the patient's column is part of a lesion's
    key, or else the study's.
    """
    if unit != "lesion_id":
        return [unit]
    around = ("patient_id", "patient_key", "study_uid", "study_id")
    return [*[name for name in around if name in columns][:1], unit]


class Unit:
    """Adds up the rows of one kind of unit; memory grows with the units, not with the rows."""

    def __init__(
        self, unit: str, columns: Collection[str], heads: Mapping[str, Sequence[str]]
    ) -> None:
        self.unit, self.keys, self._heads = unit, keys_of(unit, columns), heads
        self.without_id = 0
        self._sums: list[pa.Table] = []

    def add(self, part: pa.Table) -> None:
        """Add the rows of a part, with the columns of `columns_of`."""
        known = part.filter(_all_given([_plain(part[name]) for name in self.keys]))
        self.without_id += part.num_rows - known.num_rows
        scored, failed = (pc.equal(known["status"], it) for it in (results.OK, results.FAILED))
        table = {name: _plain(known[name]) for name in self.keys}
        table |= {"n_images": pa.repeat(1, known.num_rows), "n_scored": scored.cast(pa.int64())}
        table["n_failed"] = failed.cast(pa.int64())
        for number, values in enumerate(_values(known, self._heads)):
            table |= {f"sum {number}": values, f"max {number}": values}
        self._sums.append(pa.table(table))
        waiting = sum(its.num_rows for its in self._sums[1:])
        if waiting > max(_KEPT, self._sums[0].num_rows):
            self._sums = [self._added_up()]

    def table(self) -> pa.Table:
        """One row per unit, in the order of the ids."""
        sums = self._added_up()
        columns = {name: sums[name] for name in (*self.keys, "n_images", "n_scored", "n_failed")}
        number = 0
        for head, labels in self._heads.items():
            numbers = range(number, number + (len(labels) if len(labels) > 2 else 1))
            number = numbers.stop
            means = [pc.divide(sums[f"sum {it}"], sums["n_scored"]) for it in numbers]
            maxima = [sums[f"max {it}"] for it in numbers]
            for name, its in zip(AGGREGATES, (means, maxima), strict=True):
                if len(labels) > 2:
                    columns[f"{head}_distribution_{name}"] = _by_label(labels, its)
                else:
                    columns[f"{head}_probability_{name}"] = its[0]
        return pa.table(columns)

    def _added_up(self) -> pa.Table:
        """The sums of each unit, in the order of the ids.

        Sorted, and not grouped by Arrow, which takes six times the memory of the rows for that. The
        sort is stable: rows are added in their order, and the same parts give the same bits.
        """
        waiting, self._sums = self._sums, []
        rows = pa.concat_tables(waiting).sort_by([(name, "ascending") for name in self.keys])
        if not rows.num_rows:
            return rows
        new = np.zeros(rows.num_rows, bool)
        new[0] = True
        for name in self.keys:
            new[1:] |= pc.not_equal(rows[name][1:], rows[name][:-1]).to_numpy()
        starts = np.flatnonzero(new)
        return pa.table(
            {
                name: rows[name].take(starts)
                if name in self.keys
                else _reduced(rows[name], starts, largest=name.startswith("max "))
                for name in rows.column_names
            }
        )


def _reduced(values: pa.ChunkedArray, starts: npt.NDArray[np.int64], *, largest: bool) -> pa.Array:
    """Per unit, which begins at each of `starts`, the sum or the largest; null of nulls alone."""
    none = np.add.reduceat(values.is_valid().to_numpy().astype(np.int64), starts) == 0
    how, least = (np.maximum, -np.inf) if largest else (np.add, 0)
    return pa.array(how.reduceat(pc.fill_null(values, least).to_numpy(), starts), mask=none)


def columns_of(columns: Collection[str], heads: Mapping[str, Sequence[str]]) -> list[str]:
    """The columns of a part that units are made from; `columns` are the manifest's."""
    units = [name for name in UNITS if name in columns]
    keys = [key for unit in units for key in keys_of(unit, columns)]
    categorical = [f"{head}_distribution" for head, labels in heads.items() if len(labels) > 2]
    return list(dict.fromkeys([*keys, *(categorical if units else ())]))


def encoded(table: pa.Table, given: Mapping[str, str | None]) -> bytes:
    """A Parquet file of a unit; `given` and the aggregates are in its metadata."""
    about = {"given": json.dumps(dict(given)), "aggregates": json.dumps(AGGREGATES)}
    return file_bytes(table.replace_schema_metadata(about))


def described(unit: Unit, table: pa.Table, name: str) -> dict[str, Any]:
    """What run.json says of a unit's file."""
    failed = pc.sum(pc.greater(table["n_failed"], 0)).as_py()
    return {
        "file": name,
        "by": unit.keys,
        "aggregates": list(AGGREGATES),
        "units": table.num_rows,
        "units_with_failed_images": failed or 0,
        "units_spelt_alike": _spelt_alike(table, unit.keys),
        "rows_without_id": unit.without_id,
    }


def _spelt_alike(table: pa.Table, keys: Sequence[str]) -> int:
    """How many units have an id that differs from that of another by its spelling alone."""
    if not any(is_text(table[key].type) for key in keys):
        return 0
    spelt = [
        [without_spelling(it) for it in ids.to_pylist()] if is_text(ids.type) else ids.to_pylist()
        for ids in map(table.column, keys)
    ]
    return int(table.num_rows) - len(set(zip(*spelt, strict=True)))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _all_given(ids: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Which rows have an id in every column: null, NaN and white space are none.

    Rows without one would else be one unit: lesion 1 of every patient that is not named, say.
    """
    found = pc.is_valid(ids[0])
    for its in ids:
        blank = pc.is_null(its, nan_is_null=True)
        if is_text(its.type):
            blank = pc.or_kleene(blank, pc.equal(pc.utf8_trim_whitespace(its), ""))
        found = pc.and_not(found, blank)
    return found


def _values(part: pa.Table, heads: Mapping[str, Sequence[str]]) -> list[pa.ChunkedArray]:
    """The probability of each head, or of each of its labels where it has more than two."""
    found = []
    for head, labels in heads.items():
        if len(labels) > 2:
            of_label = part[f"{head}_distribution"]
            found += [pc.map_lookup(of_label, pa.scalar(it), "first") for it in labels]
        else:
            found.append(part[f"{head}_probability"])
    return found


def _by_label(labels: Sequence[str], columns: Sequence[pa.ChunkedArray]) -> pa.Array:
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    made = [None if row[0] is None else list(zip(labels, row, strict=True)) for row in rows]
    return pa.array(made, pa.map_(pa.string(), pa.float64()))
