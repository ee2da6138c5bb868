"""Columns of manifests in all nights of a folder: one type each, as every reader takes it."""

from __future__ import annotations

import uuid
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batch.run
from batch.manifest import read as manifest
from batch.results import carried_columns as carried
from batch.storage import objects
from sonode.console import UserError
from tests.batch.conftest import FakeArchive, put_table
from tests.batch.test_run import put_images, run


def night(folder: Path, day: int, column: pa.Array, name: str = "age") -> batch.run.RunSummary:
    """Score as many images as `column` has values, with it beside them."""
    uris = put_images(str(folder / str(day)), *[b"p=0.5"] * len(column))
    given = put_table(str(folder / f"{day}.parquet"), pa.table({"image_uri": uris, name: column}))
    return run(given, str(folder / "out"), FakeArchive(), date=f"2026-11-{day}")


@pytest.mark.parametrize(
    ("first", "second", "values"),
    [
        (pa.array([40, 50]), pa.array([61.0, None]), [40, 50, 61, None]),  # as pandas has a gap
        (pa.array([40.5]), pa.array([50]), [40.5, 50.0]),
        (pa.array([40], pa.int32()), pa.array([50], pa.int64()), [40, 50]),
        (pa.array([40.5]), pa.array([0.5], pa.float32()), [40.5, 0.5]),
        (pa.array([40]), pa.nulls(2), [40, None, None]),
        (pa.array(["x"]), pa.array(["y"], pa.large_string()), ["x", "y"]),
        (pa.array([[1, 2]]), pa.array([[3.0, 4.0]]), [[1, 2], [3, 4]]),
        (pa.array([0.5], pa.float64()), pa.array([float("nan")]), [0.5, "nan"]),
    ],
)
def test_kindred_types_are_brought_to_the_first_nights(
    tmp_path: Path, first: pa.Array, second: pa.Array, values: list[Any]
) -> None:
    night(tmp_path, 22, first)
    night(tmp_path, 23, second)
    parts = objects.list_files(str(tmp_path / "out"), deep=True)
    assert len({str(pq.read_schema(part).field("age").type) for part in parts}) == 1
    read = pq.read_table(tmp_path / "out")["age"].to_pylist()
    assert ["nan" if str(x) == "nan" else x for x in read] == values
    assert len(pd.read_parquet(tmp_path / "out")) == len(values)
    # And as often as they are run again: the same parts.
    night(tmp_path, 23, second)
    assert objects.list_files(str(tmp_path / "out"), deep=True) == parts


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([40]), pa.array([40.5])),
        (pa.array([40]), pa.array(["40"])),
        (pa.array(["40"]), pa.array([40])),
        (pa.nulls(1), pa.array([40])),  # text, since it had to be something
        (pa.array([40]), pa.array([True])),
        (pa.array([0.5]), pa.array([2**53 + 1])),
        (pa.array([0.5], pa.float32()), pa.array([0.1])),
        (pa.array([date(2026, 1, 2)]), pa.array([datetime(2026, 1, 2, 3)])),
        (pa.array([40]), pa.array([[40]])),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_scored(
    tmp_path: Path, first: pa.Array, second: pa.Array
) -> None:
    night(tmp_path, 22, first)
    with pytest.raises(UserError, match="do not match those of the results there") as caught:
        night(tmp_path, 23, second)
    (line,) = caught.value.details
    assert line.startswith("column 'age' is ")
    assert not (tmp_path / "out/_runs/date=2026-11-23").exists()
    assert night(tmp_path, 23, first).rows == 1  # mended, it has the same date


def test_a_name_that_differs_in_case_alone_is_refused(tmp_path: Path) -> None:
    night(tmp_path, 22, pa.array([40]))
    with pytest.raises(UserError) as caught:
        night(tmp_path, 23, pa.array([40]), name="Age")
    (line,) = caught.value.details
    assert line.startswith("column 'Age' is 'age' in the results")


def test_columns_of_a_later_night_are_added(tmp_path: Path) -> None:
    night(tmp_path, 22, pa.array([40]))
    night(tmp_path, 23, pa.array([1.5]), name="weight")
    with pytest.raises(UserError):
        night(tmp_path, 24, pa.array(["heavy"]), name="weight")
    assert night(tmp_path, 25, pa.array([41])).rows == 1


def test_two_first_nights_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that have seen no types yet, the slower takes those of the faster one."""
    create = objects.create

    def late(uri: str, data: bytes) -> None:
        if uri.endswith("columns.arrow"):
            monkeypatch.setattr(objects, "create", create)
            night(tmp_path, 22, pa.array([40.5]))
        create(uri, data)

    monkeypatch.setattr(objects, "create", late)
    night(tmp_path, 23, pa.array([41]))
    assert pq.read_table(tmp_path / "out")["age"].to_pylist() == [40.5, 41.0]


def test_types_that_cannot_be_read_end_a_run(tmp_path: Path) -> None:
    night(tmp_path, 22, pa.array([40]))
    (tmp_path / "out/_runs/columns.arrow").write_bytes(b"none")
    with pytest.raises(UserError, match=r"columns\.arrow: not a file that a run wrote"):
        night(tmp_path, 23, pa.array([40]))


def test_types_that_readers_do_not_share_are_carried_as_ones_that_they_do(tmp_path: Path) -> None:
    """Spark 3 and 4 answer "Illegal Parquet type" to TIME, UUID, FLOAT16 and long decimals."""
    number = "123456789012345678901234567890123456789.5"
    given = pa.table(
        {
            "image_uri": put_images(str(tmp_path), b"p=0.5", b"p=0.25"),
            "clock": pa.array([time(12, 34, 56, 7), None], pa.time64("us")),
            "id": pa.array([uuid.UUID(int=5).bytes, None], pa.uuid()),
            "ids": pa.ListArray.from_arrays(
                [0, 1, 1], pa.array([uuid.UUID(int=5).bytes], pa.uuid())
            ),
            "half": pa.array(np.array([1.5, 0.1], np.float16)),
            "long": pa.array([Decimal(number), None], pa.decimal256(40, 1)),
            "clocks": pa.array([[time(1, 2, 3)], []], pa.list_(pa.time32("s"))),
            "named": pa.array(
                [[("a", datetime(2026, 1, 2))], []], pa.map_(pa.string(), pa.timestamp("ns"))
            ),
        }
    )
    run(put_table(str(tmp_path / "m.parquet"), given), str(tmp_path / "out"), FakeArchive())
    (part,) = objects.list_files(str(tmp_path / "out"), deep=True)
    table = pq.ParquetFile(part).read()
    rows = table.to_pylist()
    assert rows[0]["clock"] == "12:34:56.000007"
    assert rows[0]["id"] == "00000000-0000-0000-0000-000000000005"
    assert rows[0]["ids"] == [uuid.UUID(int=5).bytes]
    assert rows[0]["long"] == number
    assert rows[0]["clocks"] == ["01:02:03.000"]  # Parquet has no whole seconds
    assert rows[0]["named"] == [("a", datetime(2026, 1, 2))]
    assert [row["half"] for row in rows] == [1.5, float(np.float16(0.1))]
    assert [rows[1][name] for name in ("clock", "id", "long")] == [None] * 3
    columns = pq.ParquetFile(part).schema
    logical = {str(columns.column(i).logical_type).partition("(")[0] for i in range(len(columns))}
    assert logical <= {"String", "None", "Timestamp", "Int", "List", "Map"}
    assert duckdb.sql(f"select count(*) from '{part}'").fetchall() == [(2,)]


def test_types_are_only_looked_at_by_a_plan(tmp_path: Path, put_table: Any) -> None:
    given = put_table(str(tmp_path / "m.parquet"), {"image_uri": ["a.png"]})
    with manifest.open_manifest(given, reserved=()) as found:
        assert carried.agreed(found, str(tmp_path / "out"), dry=True).schema == found.schema
    assert not (tmp_path / "out").exists()
