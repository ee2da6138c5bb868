from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.manifest import read as manifest
from batch.storage import objects
from sonode.console import UserError


def rows_of(uri: str, **options: Any) -> list[str]:
    with manifest.open_manifest(uri, reserved=(), **options) as found:
        return [uri for table in found.tables(99) for uri in table["image_uri"].to_pylist()]


def test_no_file_of_a_folder_is_left_out_in_silence(tmp_path: Path, put_table: Any) -> None:
    folder = tmp_path / "night"
    for number, name in enumerate(("a.parquet", "C.PARQUET", "_d.parquet", ".e.parquet")):
        put_table(str(folder / name), {"image_uri": [f"{number}.png"]})
    assert sorted(rows_of(str(folder))) == ["0.png", "1.png"]  # as readers take them
    for name in ("site=b/b.parquet", "site=c/deep/c.parquet"):
        put_table(str(folder / name), {"image_uri": ["x.png"]})
    with pytest.raises(UserError, match="2 Parquet files lie in folders below it"):
        rows_of(str(folder))


def test_results_below_the_manifests_folder_are_none_of_it(tmp_path: Path, put_table: Any) -> None:
    put_table(str(tmp_path / "m.parquet"), {"image_uri": ["a.png"]})
    put_table(str(tmp_path / "out" / "date=2026-11-22" / "p.parquet"), {"status": ["ok"]})
    assert rows_of(str(tmp_path), out=str(tmp_path / "out")) == ["a.png"]
    with pytest.raises(UserError, match="1 Parquet files lie in folders below it"):
        rows_of(str(tmp_path), out=str(tmp_path / "elsewhere"))


def test_parquet_is_known_by_content_where_its_name_does_not_tell(
    folder: str, put_table: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("a.parquet", "b.parq", "c.PQ", "d.parquet.snappy", "20261122_0815_x7k2")
    for name in names:  # the last as Athena writes it
        put_table(objects.join(folder, f"m/{name}"), {"image_uri": [f"{name}.png"]})
    assert sorted(rows_of(objects.join(folder, "m"))) == sorted(f"{name}.png" for name in names)
    assert not caplog.records
    objects.write(objects.join(folder, "m/notes.txt"), b"not a table")
    objects.write(objects.join(folder, "m/empty"), b"")
    objects.write(objects.join(folder, "m/images/smith-1970.png"), b"p=0.5")
    assert len(rows_of(objects.join(folder, "m"))) == len(names)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        ": 5 Parquet files are read; other files there are ignored: 1 with .txt, 1 with no suffix, "
        "1 in folders below"
    )


def test_what_is_called_parquet_and_is_none_is_refused(tmp_path: Path, put_table: Any) -> None:
    put_table(str(tmp_path / "a.parquet"), {"image_uri": ["a.png"]})
    packed = gzip.compress((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "b.parquet.gz").write_bytes(packed)
    with pytest.raises(
        UserError, match=r"b\.parquet\.gz: named as Parquet, but their content is not"
    ):
        rows_of(str(tmp_path))


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "a Delta table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
        ("metadata/00000-1b2c.metadata.json", "an Iceberg table"),
        ("_spark_metadata/0", "the sink of a Spark stream"),
    ],
)
def test_tables_whose_log_says_which_rows_count_are_refused(
    folder: str, put_table: Any, log: str, kind: str
) -> None:
    table = objects.join(folder, "table")
    places = ("", "date=2026-11-22", "data/date=2026-11-22") if "meta" in log else ("", "date=1")
    files = [
        put_table(objects.join(table, f"{place}/1.parquet".lstrip("/")), {"image_uri": ["a.png"]})
        for place in places
    ]
    assert rows_of(files[0]) == rows_of(objects.parent(files[1])) == ["a.png"]
    objects.write(objects.join(table, log), b"{}")
    for uri in (table, *files, *map(objects.parent, files)):
        with pytest.raises(UserError, match=f"belongs to {kind}, whose log .* export") as caught:
            rows_of(uri)
        assert "Parquet: " in str(caught.value)


def test_a_folder_called_metadata_alone_makes_no_table_with_a_log(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": ["a.png"]}), tmp_path / "m.parquet")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "study.json").write_text("{}")
    assert rows_of(str(tmp_path)) == ["a.png"]
