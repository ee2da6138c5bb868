"""A source's table, CSV or Parquet, as records of text with the place of each."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sonode_console import UserError
from train.import_values import FormatError, number


@dataclass(frozen=True)
class Records:
    """The rows of one table; a blank is the empty text."""

    columns: list[str]
    rows: list[dict[str, str]]
    places: list[str]
    """Where each row stands: `labels.csv line 2`, or `labels.parquet row 0`."""
    kinds: dict[str, type]
    """What each column holds: float, str or bool. In a CSV it is float where every value is."""
    floating: frozenset[str] = frozenset()
    """Columns of floating type, in which a Parquet file holds whole numbers as 7.0; none of a CSV,
    where a value is the text that stands there."""

    def further(self, fixed: Collection[str]) -> dict[str, type]:
        """The columns beyond the fixed ones as name -> float or str.

        Raises:
            UserError: one of them holds truth values.
        """
        further = {name: kind for name, kind in self.kinds.items() if name not in fixed}
        for name, kind in further.items():
            if kind is bool:
                raise UserError(f"SRC: column `{name}` holds bool; write it as string or number")
        return further


def read_records(path: Path, required: Collection[str]) -> Records:
    """The records of a .csv (UTF-8, comma) or .parquet file, values without outer spaces.

    Raises:
        UserError: no such file, not of its format, or without a required column.
    """
    if not path.is_file():
        raise UserError(f"SRC {path}: no such file")
    records = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    twice = [name for name, times in Counter(records.columns).items() if times > 1]
    if twice:
        raise UserError(f"SRC {path.name}: column {', '.join(twice)} stands twice; keep one")
    absent = [name for name in required if name not in records.columns]
    if absent:
        raise UserError(f"SRC {path.name}: no column {', '.join(absent)}; add it, blank if unknown")
    return records


def _read_csv(path: Path) -> Records:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("holds a zero byte")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, [field.strip() for field in line]) for line in reader]
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"SRC {path.name}: not a CSV in UTF-8 ({type(error).__name__}); save it again as one"
        ) from error
    columns = lines[0][1] if lines else []
    body = [(number, line) for number, line in lines[1:] if any(line)]
    ragged = [str(number) for number, line in body if len(line) != len(columns)]
    if ragged:
        raise UserError(
            f"SRC {path.name}: line {', '.join(ragged)}: not {len(columns)} fields as the header; "
            "quote a field that holds a comma"
        )
    rows = [dict(zip(columns, line, strict=True)) for _, line in body]
    return Records(
        columns,
        rows,
        [f"{path.name} line {number}" for number, _ in body],
        {name: _kind(row[name] for row in rows) for name in columns},
    )


def _kind(values: Any) -> type:
    """Float where there is a value and every one is a number, else str."""
    given = [value for value in values if value]
    try:
        return float if [number(value) for value in given] else str
    except FormatError:
        return str


def _read_parquet(path: Path) -> Records:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"SRC {path.name}: not a Parquet table") from error
    kinds: dict[str, type] = {}
    floating: set[str] = set()
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            kinds[field.name] = bool if pa.types.is_boolean(kind) else float
            if pa.types.is_floating(kind):
                floating.add(field.name)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
            kinds[field.name] = str
        else:
            raise UserError(
                f"SRC {path.name}: column `{field.name}` holds {kind}; write it as string or number"
            )
    rows = [
        {name: "" if value is None else str(value).strip() for name, value in row.items()}
        for row in (table.to_pylist() if len(kinds) == table.num_columns else [])
    ]
    places = [f"{path.name} row {index}" for index in range(len(rows))]
    return Records(table.column_names, rows, places, kinds, frozenset(floating))
