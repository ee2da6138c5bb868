"""What readers said of scores: one line of JSON each, only ever added to; and as a table.

A line names no person, no file and no folder. An image is named by digests: `image_sha256` of its
bytes (the `image_etag` of a run over local files) and `pixels_sha256` (as in a cohort's table).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from sonode.console import UserError
from sonode.files.atomic import beside, sync

COLUMNS = (
    *("time", "stage", "order", "seconds"),
    *("verdict", "head", "label", "reader_label", "note"),
    *("probability", "threshold", "uncertain"),
    *("model_name", "model_version", "model_sha256", "engine"),
    *("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max", "frame", "width", "height"),
    *("image_sha256", "pixels_sha256", "client", "reader"),
)

_LAST = 4096  # bytes: some lines, each of which names an image and a time


class Record:
    """The file, which several readers may share."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where it cannot be written."""
        self._path = path
        self._read, self._number = 0, 1  # bytes of the lines that `new` has given; the next one's
        self._last = b""  # the last of those bytes: another file has others there
        try:
            os.close(self._open())
        except OSError as error:
            raise UserError(f"--record {path}: {error.strerror}; give another file") from None

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def new(self) -> dict[int, dict[str, Any]]:
        """The lines that no call has given yet, by their number.

        Raises UserError for a line that is none of a reader's, and a file that has lost lines or is
        another one.
        """
        with self._path.open("rb") as file:
            file.seek(self._read - len(self._last))
            known, data = file.read(len(self._last)), file.read()
        if known != self._last:
            raise UserError(f"--record {self._path}: has lost lines; start the reader again")
        found = dict(enumerate(_parsed(data, self._number, f"--record {self._path}"), self._number))
        whole = data[: data.rfind(b"\n") + 1]  # what has no end is given again
        self._read += len(whole)
        self._last = (self._last + whole)[-_LAST:]
        self._number += whole.count(b"\n")
        return found

    def add(self, make: Callable[[], Sequence[dict[str, Any]]]) -> None:
        """Add the lines that `make` gives, on the disk when this returns; all or none.

        No other process adds any between the call of `make` and that. Raises OSError.
        """
        file = self._open()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            line = b"".join(json.dumps(it, allow_nan=False).encode() + b"\n" for it in make())
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # a power cut has left half a line: it takes no other with it
            try:
                if os.write(file, line) != len(line):
                    raise OSError("the disk is full")
                os.fsync(file)
            except OSError:
                with suppress(OSError):  # a device has no size
                    os.ftruncate(file, size)
                raise
        finally:
            os.close(file)


def read(path: Path, what: str) -> list[dict[str, Any]]:
    """The lines, each with `COLUMNS`; `what`: the option or argument that names the file.

    Raises UserError for a line that is none of a reader's.
    """
    try:
        return _parsed(path.read_bytes(), 1, f"{what} {path}")
    except OSError as error:
        raise UserError(f"{what} {path}: {error.strerror}") from None


def _parsed(data: bytes, number: int, what: str) -> list[dict[str, Any]]:
    """Lines, the first of which has this number in the file that `what` names."""
    rows = []
    for place, line in enumerate(data.splitlines(), number):
        try:
            row = json.loads(line)
            rows.append({name: row[name] for name in COLUMNS})
        except KeyError as missing:  # others' answers may be in it: it must not be thrown away
            raise UserError(
                f"{what}: line {place} has no {missing.args[0]}: it is not a reader's, or of "
                "another version of sonode; keep the file, and give another one"
            ) from None
        except (ValueError, TypeError):
            raise UserError(
                f"{what}: line {place} is not a reader's, or not whole; take it out"
            ) from None
    return rows


def as_table(path: Path) -> pd.DataFrame:
    """The lines, each a row. Raises UserError as `read`."""
    return pd.DataFrame(read(path, "READING"), columns=COLUMNS)


def named(line: Mapping[str, Any]) -> str:
    """Who reads, in words, by `client` and `reader`; empty where neither is known."""
    client = line["client"] and f"{line['client']} (says the gateway)"
    return ", ".join(filter(None, (client, line["reader"])))


def export(make: Callable[[], pd.DataFrame], out: Path) -> int:
    """Write a table, CSV or Parquet by the name of `out`; give the number of its rows.

    Raises UserError for a file that is there already.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"OUT {out}: give a name that ends in .csv or .parquet")
    if out.exists():
        raise UserError(f"OUT {out}: is there already; give a new file")
    table = make()
    with beside(out) as part:
        if out.suffix == ".csv":
            table.to_csv(part, index=False)
        else:
            table.to_parquet(part, index=False)
        sync(part)
        part.rename(out)
    return len(table)
