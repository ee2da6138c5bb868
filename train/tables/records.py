"""A source's table, CSV or Parquet, as records of text with the place of each."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sonode.console import UserError, say
from sonode.files.parquet import is_joined
from train.tables.texts import missing_words, without_decimal_commas
from train.tables.values import FormatError, number

_TEXTS = ("patient_id", "lesion_id", "image", "device", "instance_uid", "file")
_READ_AS_TEXT = {pa.string(), pa.large_string(), pa.string_view(), pa.bool_(), pa.null()}
_INDEX = re.compile(r"__index_level_\d+__")  # pandas' index without a name, in Parquet
_CSV_INDEX = re.compile(r"(Unnamed: 0(\.\d+)?)?")  # the same in a CSV, and when read once more
_SEPARATOR = re.compile(r'"?sep=(.)"?')  # a first line that Excel reads and writes


@dataclass(frozen=True)
class Records:
    """The rows of one table; a blank is the empty text."""

    columns: list[str]
    rows: list[dict[str, str]]
    places: list[str]
    """Where each row stands: `labels.csv line 2`, or `labels.parquet row 0`."""
    kinds: dict[str, type]
    """What each column holds: float or str. In a CSV it is float where every value is."""
    floating: frozenset[str] = frozenset()
    """Columns of floating type, in which a Parquet file holds whole numbers as 7.0; none of a CSV,
    where a value is the text that stands there."""


def read_records(path: Path, required: Collection[str]) -> Records:
    """The records of a CSV (UTF-8; comma, semicolon or tab) or a Parquet file.

    Values have no outer spaces; words for "missing" are read as blanks, and reported.

    Raises UserError: no such file, not of its format, or without a required column.
    """
    if path.is_dir():
        raise UserError(f"SRC {path}: is a folder; give the table's file")
    if not path.is_file():
        raise UserError(f"SRC {path}: no such file")
    data = path.read_bytes()
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(
            f"SRC {path.name}: an Excel or OpenDocument workbook; save its sheet as CSV UTF-8"
        )
    parquet = path.suffix == ".parquet" or data.startswith(b"PAR1")
    records = _read_parquet(path, data) if parquet else _read_csv(path, data, required)
    twice = [f"`{name}`" for name, times in Counter(records.columns).items() if times > 1]
    if twice:
        raise UserError(f"SRC {path.name}: column {', '.join(twice)} is duplicated; keep one")
    _leave_out_index(records, parquet=parquet)
    absent = [name for name in required if name not in records.columns]
    if absent:
        raise UserError(f"SRC {path.name}: no column {', '.join(absent)}; add it, blank if unknown")
    return records


def _read_csv(path: Path, data: bytes, required: Collection[str]) -> Records:
    text = _decoded(path, data)
    try:
        separator = _separator(text, required)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = [(reader.line_num, [field.strip() for field in line]) for line in reader]
    except csv.Error as error:
        raise UserError(
            f"SRC {path.name}: not a CSV in UTF-8 ({error}); save it again as one"
        ) from error
    if lines and _SEPARATOR.fullmatch(text.splitlines()[0]):
        del lines[0]
    columns = lines[0][1] if lines else []
    while (
        columns
        and not columns[-1]
        and not any("".join(line[len(columns) - 1 :]) for _, line in lines)
    ):
        columns.pop()  # Excel writes columns of nothing behind the last one
        lines = [(number, line[: len(columns)]) for number, line in lines]
    if columns and required and not set(required) & set(columns):
        raise UserError(
            f"SRC {path.name}: its first line has none of the columns {', '.join(required)}; write "
            "the header there, spelt so"
        )
    body = [(number, line) for number, line in lines[1:] if any(line)]
    ragged = [str(number) for number, line in body if len(line) != len(columns)]
    if ragged:
        mark = {",": "a comma", ";": "a semicolon", "\t": "a tab"}.get(separator, separator)
        raise UserError(
            f"SRC {path.name}: line {', '.join(ragged)}: not the header's {len(columns)} fields; "
            f"quote a field that contains {mark}, and remove one at a line's end"
        )
    rows = [dict(zip(columns, line, strict=True)) for _, line in body]
    _blank_missing(rows, columns)
    _point_decimals(path, rows, columns)
    return Records(
        columns,
        rows,
        [f"{path.name} line {number}" for number, _ in body],
        {name: _kind(row[name] for row in rows) for name in columns},
    )


def _decoded(path: Path, data: bytes) -> str:
    """The text of a CSV. Raises UserError: it is not in UTF-8; says what it seems to be in."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"SRC {path.name}: is in UTF-16; save it again as CSV UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"SRC {path.name}: not a CSV in UTF-8 (line {line}), but likely in Windows-1252; save "
            "it again as CSV UTF-8"
        ) from error
    if "\0" in text:
        raise UserError(
            f"SRC {path.name}: not a CSV in UTF-8 (holds a zero byte); save it again as one"
        )
    return text


def _separator(text: str, required: Collection[str]) -> str:
    """What separates the fields: as Excel's first line says, else what parts most known columns."""
    lines = text.split("\n", 1)
    if given := _SEPARATOR.fullmatch(lines[0].rstrip("\r")):
        return given.group(1)

    def known(separator: str) -> int:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        return sum(name.strip() in required for name in names)

    return max((",", ";", "\t"), key=known)  # the first one of equals


def _blank_missing(rows: list[dict[str, str]], columns: Collection[str]) -> None:
    """Make blanks of the words for "missing", and report how many of which."""
    missing = []
    for name in columns:
        words = missing_words([row[name] for row in rows])
        found = Counter(row[name] for row in rows if row[name] in words)
        missing += [f"`{word}` in {name} ({times})" for word, times in found.items()]
        for row in rows:
            if row[name] in words:
                row[name] = ""
    if missing:
        say(f"read as missing: {', '.join(missing)}")


def _point_decimals(path: Path, rows: list[dict[str, str]], columns: Collection[str]) -> None:
    """Write the numbers of columns that have decimal commas with points."""
    for name in columns:
        if name in _TEXTS:
            continue
        try:
            points = without_decimal_commas([row[name] for row in rows])
        except FormatError as error:
            raise UserError(f"SRC {path.name}: column `{name}`: {error}") from error
        for row, value in zip(rows, points or (), strict=points is not None):
            row[name] = value


def _leave_out_index(records: Records, *, parquet: bool) -> None:
    """Take out (in place) the unnamed index that pandas wrote, and say so, as pandas reads it.

    In a CSV it is a first column without a name (`Unnamed: 0` when written once more), as is a
    column whose name was forgotten; so there it must hold integers that do not repeat.
    """
    pattern, first = _INDEX if parquet else _CSV_INDEX, records.columns[:1]
    for name in [it for it in records.columns if pattern.fullmatch(it) and (it or [it] == first)]:
        values = [row[name] for row in records.rows if row[name]]
        if not parquet and not (len({*values}) == len(values) and all(map(str.isdecimal, values))):
            continue
        records.columns.remove(name)
        del records.kinds[name]
        for row in records.rows:
            del row[name]
        say(f"column `{name}` is the index that pandas wrote and is not read")


def _kind(values: Any) -> type:
    """Float where there is a value and every one is a number, else str."""
    given = [value for value in values if value]
    try:
        return float if [number(value) for value in given] else str
    except FormatError:
        return str


def _read_parquet(path: Path, data: bytes) -> Records:
    if is_joined(data):
        raise UserError(
            f"SRC {path.name}: several Parquet files one behind the other, of which readers see "
            "one; make one table of them"
        )
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        values = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: no text in UTF-8
        raise UserError(f"SRC {path.name}: not a Parquet table") from error
    kinds: dict[str, type] = {}
    floating: set[str] = set()
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            kinds[field.name] = float
            if pa.types.is_floating(kind):
                floating.add(field.name)
        elif kind in _READ_AS_TEXT:
            kinds[field.name] = str
        else:
            raise UserError(
                f"SRC {path.name}: column `{field.name}` holds {kind}; write it as string or number"
            )
    rows = [
        {name: "" if value is None else str(value).strip() for name, value in row.items()}
        for row in (values if len(kinds) == table.num_columns else [])
    ]
    _blank_missing(rows, table.column_names if rows else ())
    places = [f"{path.name} row {index}" for index in range(len(rows))]
    return Records(table.column_names, rows, places, kinds, frozenset(floating))
