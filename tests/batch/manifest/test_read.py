from __future__ import annotations

import base64
import errno
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.manifest import checks
from batch.manifest import read as manifest
from batch.manifest.checks import row_problems
from batch.manifest.column_types import schema_problems
from batch.storage import objects, uris
from batch.storage.errors import StorageError
from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS


def problems(table: pa.Table) -> list[str]:
    return [*schema_problems(table.schema, reserved=()), *row_problems(table, "/f")]


def _found(**columns: Any) -> list[str]:
    rows = len(next(iter(columns.values())))
    return problems(pa.table({"image_uri": ["a.png"] * rows, **columns}))


OPEN = ExitStack()


@pytest.fixture(autouse=True)
def _stay_open() -> Iterator[None]:
    with OPEN:
        yield


def opened(uri: str, **options: Any) -> manifest.Manifest:
    """Open a manifest until the test's end."""
    return OPEN.enter_context(manifest.open_manifest(uri, **{"reserved": (), **options}))


def asked(found: manifest.Manifest) -> list[manifest.Request]:
    (table,) = found.tables(1000)
    return manifest.requests(table, found.folder)


@pytest.fixture
def load(tmp_path: Path, put_table: Any) -> Any:
    def put_and_load(**columns: Any) -> manifest.Manifest:
        uri = put_table(str(tmp_path / "m.parquet"), columns)
        return opened(uri, reserved={"status"})

    return put_and_load


def test_requests_hold_what_torchserve_would_hand_over(load: Any, tmp_path: Path) -> None:
    found = load(
        image_uri=["s3://other/x.png", "sub/y.png", "/z.dcm"],
        roi=[[1, 2, 30, 40], [0.0, 2.0, 30.0, 40.0], None],
        frame=pa.array([None, None, 7]),
        etag=[None, "e", None],
        study_id=["s1", "s2", "s3"],
    )
    assert asked(found) == [
        manifest.Request("s3://other/x.png", None, {"roi": "1,2,30,40"}),
        manifest.Request(str(tmp_path / "sub/y.png"), "e", {"roi": "0,2,30,40"}),
        manifest.Request("/z.dcm", None, {"frame": "7"}),
    ]
    assert found.buckets == ("s3://other/",)
    assert found.schema.names == ["image_uri", "roi", "frame", "etag", "study_id"]


def test_four_columns_from_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image_uri": ["a", "b"], "frame": pd.array([None, 3], dtype="Int64")})
    frame["roi_x_min"] = frame["roi_y_min"] = [0.0, None]
    frame["roi_x_max"] = frame["roi_y_max"] = [8.0, None]
    frame["image_uri"] = frame["image_uri"].astype("category")
    frame.to_parquet(tmp_path / "m.parquet")
    found = opened(str(tmp_path / "m.parquet"))
    assert [request.fields for request in asked(found)] == [
        {"roi": "0,0,8,8"},
        {"frame": "3"},
    ]


def test_a_column_without_a_value_has_the_type_that_its_values_would_have(
    tmp_path: Path, put_table: Any
) -> None:
    empty = {name: pa.nulls(2) for name in ("frame", "roi", "etag", "note")}
    put_table(str(tmp_path / "m/1.parquet"), {"image_uri": ["a", "b"], **empty})
    kinds = {"frame": "int64", "roi": "list<item: double>", "etag": "string", "note": "string"}
    found = opened(str(tmp_path / "m"))
    assert {name: str(found.schema.field(name).type) for name in empty} == kinds
    assert asked(found) == [manifest.Request(str(tmp_path / f"m/{n}"), None, {}) for n in "ab"]
    put_table(
        str(tmp_path / "m/2.parquet"),
        {"image_uri": ["c"], "frame": [4], "roi": [[0, 0, 1, 1]], "etag": ["e"], "note": [1.5]},
    )
    both = opened(str(tmp_path / "m"))
    assert str(both.schema.field("note").type) == "double"  # another file knows better
    assert asked(both)[2].fields == {"frame": "4", "roi": "0,0,1,1"}
    four = dict.fromkeys(ROI_COLUMNS, pa.nulls(1))
    put_table(str(tmp_path / "four.parquet"), {"image_uri": ["a"], **four})
    found = opened(str(tmp_path / "four.parquet"))
    assert {str(found.schema.field(name).type) for name in four} == {"double"}


def test_relative_s3_uris_follow_the_manifest() -> None:
    table = pa.table({"image_uri": ["x.png", "/local.png", "s3://a/k"]})
    assert [r.image_uri for r in manifest.requests(table, "s3://studies/night")] == [
        "s3://studies/night/x.png",
        "/local.png",
        "s3://a/k",
    ]
    column = table["image_uri"]
    assert uris.buckets(column, "s3://studies/night") == {"s3://a/", "s3://studies/"}
    assert uris.buckets(column.slice(1), "s3://studies/night") == {"s3://a/"}
    assert uris.buckets(column, "/night") == {"s3://a/"}


def test_what_was_checked_is_scored_whatever_becomes_of_the_file(
    load: Any, tmp_path: Path, put_table: Any
) -> None:
    found = load(image_uri=["a.png", "b.png"])
    put_table(str(tmp_path / "m.parquet"), {"image_uri": ["c.png", "d.png"]})
    (table,) = found.tables(10)
    assert table["image_uri"].to_pylist() == ["a.png", "b.png"]


def test_a_full_folder_of_temporary_files_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, put_table: Any
) -> None:
    uri = put_table(str(tmp_path / "m.parquet"), {"image_uri": ["a"]})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(
        UserError,
        match=r"No space left on device; free space and .*, or set TMPDIR to another folder",
    ):
        opened(uri)


def test_the_copy_that_a_killed_run_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put_table: Any
) -> None:
    uri = put_table(str(tmp_path / "manifest.parquet"), {"image_uri": ["a"]})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    left = tmp_path / "temporary" / "left"
    with manifest.open_manifest(uri, reserved=()):
        (copies,) = (tmp_path / "temporary").iterdir()
        shutil.copytree(copies, left)
    left.rename(copies)  # as after a kill
    os.utime(copies, (0, 0))
    with manifest.open_manifest(uri, reserved=()):
        assert not copies.exists()
    assert not list((tmp_path / "temporary").iterdir())


def test_types_are_those_that_readers_share(load: Any, tmp_path: Path) -> None:
    nanoseconds = pa.array([1_000, None], pa.timestamp("ns", "UTC"))
    found = load(
        image_uri=["a.png", "b.png"],
        taken=nanoseconds,
        tags=pa.array([[], None], pa.list_(pa.null())),
        more=pa.array(
            [{"x": None, "t": 5_000}] * 2, pa.struct({"x": pa.null(), "t": pa.timestamp("ns")})
        ),
    )
    assert dict(zip(found.schema.names, found.schema.types, strict=True)) == {
        "image_uri": pa.string(),
        "taken": pa.timestamp("us", "UTC"),
        "tags": pa.list_(pa.string()),
        "more": pa.struct({"x": pa.string(), "t": pa.timestamp("us")}),
    }
    (table,) = found.tables(10)
    assert table["taken"].to_pylist() == [datetime(1970, 1, 1, 0, 0, 0, 1, UTC), None]
    with pytest.raises(UserError, match=r"column 'taken' holds timestamp.* that does not fit"):
        load(image_uri=["a.png"], taken=pa.array([1_001], pa.timestamp("ns")))


def test_new_types_are_those_that_readers_know(load: Any) -> None:
    found = load(
        image_uri=pa.array(["a.png"], pa.string_view()),
        etag=pa.array(["e"], pa.string_view()),
        tags=pa.array([["x"]], pa.list_(pa.string_view())),
        raw=pa.array([b"x"], pa.binary_view()),
        patient_id=pa.array([Decimal("1.5")], pa.decimal32(9, 2)),
    )
    assert [str(kind) for kind in found.schema.types] == [
        *("string", "string", "list<element: string>", "binary", "decimal128(9, 2)")
    ]
    assert asked(found)[0].etag == "e"


def test_decimals_are_taken_where_they_are_whole(load: Any) -> None:
    def decimals(*values: str | None) -> pa.Array:
        return pa.array([value and Decimal(value) for value in values], pa.decimal128(20, 2))

    found = load(
        image_uri=["a", "b"],
        frame=decimals("3.00", None),
        **{
            name: decimals(edge, None)
            for name, edge in zip(ROI_COLUMNS, ("1.00", "2.00", "30.00", "40.00"), strict=True)
        },
    )
    assert [request.fields for request in asked(found)] == [
        {"roi": "1,2,30,40", "frame": "3"},
        {},
    ]
    listed = pa.array([[Decimal(n) for n in "0134"]], pa.list_(pa.decimal128(5, 1)))
    assert asked(load(image_uri=["a"], roi=listed))[0].fields == {"roi": "0,1,3,4"}
    edges = [decimals("1.00"), decimals("2.00"), decimals("30.00"), decimals("9007199254740992.25")]
    with pytest.raises(UserError, match="1 fault") as caught:
        load(image_uri=["a"], **dict(zip(ROI_COLUMNS, edges, strict=True)))
    assert "9007199254740992) is beyond any image" in caught.value.details[0]


def test_kindred_types_of_files_are_brought_to_one(tmp_path: Path, put_table: Any) -> None:
    put_table(
        str(tmp_path / "m/1.parquet"),
        {
            "image_uri": ["a"],
            "frame": pa.array([3], pa.int32()),
            "taken": pa.array([5_000], pa.timestamp("ns")),
            "age": pa.array([64], pa.int32()),
            "height": [2],
            "dose": [5],
            "site": pa.array(["x"]).dictionary_encode(),
        },
    )
    put_table(
        str(tmp_path / "m/2.parquet"),
        {
            "image_uri": pa.array(["b", "c"], pa.large_string()),
            "frame": pa.array([4, None], pa.int64()),
            "taken": pa.array([7, None], pa.timestamp("ms")),
            "age": pa.array([71.0, None], pa.float64()),  # as pandas makes of a gap
            "height": [1.5, None],
            "dose": [Decimal("2.50"), None],
            "site": pa.array(["y", None], pa.string_view()),
        },
    )
    found = opened(str(tmp_path / "m"))
    assert [str(kind) for kind in found.schema.types] == [
        *(
            "large_string",
            "int64",
            "timestamp[us]",
            "int64",
            "double",
            "decimal128(38, 2)",
            "string",
        )
    ]
    (table,) = found.tables(10)
    table = table.set_column(2, "taken", table["taken"].cast(pa.int64()))
    assert table.to_pydict() == {
        "image_uri": ["a", "b", "c"],
        "frame": [3, 4, None],
        "taken": [5, 7_000, None],
        "age": [64, 71, None],
        "height": [2.0, 1.5, None],
        "dose": [5, Decimal("2.5"), None],
        "site": ["x", "y", None],
    }
    put_table(str(tmp_path / "n/1.parquet"), {"image_uri": ["a"], "id": [(1 << 53) + 1]})
    put_table(str(tmp_path / "n/2.parquet"), {"image_uri": ["b"], "id": [0.5]})
    with pytest.raises(UserError, match="column 'id' holds int64 that does not fit into double"):
        opened(str(tmp_path / "n"))
    put_table(str(tmp_path / "n/2.parquet"), {"image_uri": [b"b"], "id": [1]})
    with pytest.raises(UserError, match=r"'image_uri' holds binary in 2\.parquet"):
        opened(str(tmp_path / "n"))


def test_of_many_files_the_broken_one_is_named(tmp_path: Path, put_table: Any) -> None:
    for name in "ab":
        put_table(str(tmp_path / f"{name}.parquet"), {"image_uri": [f"{name}.png"]})
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r": b\.parquet: damaged, or not a Parquet file"):
        opened(str(tmp_path))


def test_a_flipped_bit_in_a_page_with_a_checksum_is_seen(tmp_path: Path) -> None:
    roi = dict(zip(ROI_COLUMNS, ([150], [0], [300], [9]), strict=True))
    table = pa.table({"image_uri": ["a.png"], **roi})
    path = tmp_path / "m.parquet"
    pq.write_table(
        *(table, path),
        use_dictionary=False,
        compression="none",
        write_page_checksum=True,
        write_statistics=False,
    )
    assert asked(opened(str(path)))[0].fields == {"roi": "150,0,300,9"}
    data = path.read_bytes()
    at = data.index((150).to_bytes(8, "little"))
    path.write_bytes(data[:at] + bytes([214]) + data[at + 1 :])
    assert pq.read_table(path)["roi_x_min"].to_pylist() == [214]  # whoever does not look
    with pytest.raises(UserError, match="not a Parquet file"):
        opened(str(path))


class _Kms(pe.KmsClient):
    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, _: str) -> bytes:
        return base64.b64decode(wrapped)


@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_an_encrypted_file_is_called_that(tmp_path: Path, plaintext_footer: bool) -> None:
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["image_uri"]}, plaintext_footer=plaintext_footer
    )
    keys = pe.CryptoFactory(lambda _: _Kms()).file_encryption_properties(
        pe.KmsConnectionConfig(), config
    )
    table = pa.table({"image_uri": ["a.png"]})
    with pq.ParquetWriter(
        tmp_path / "m.parquet", table.schema, encryption_properties=keys
    ) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="an encrypted Parquet file; give an unencrypted copy"):
        opened(str(tmp_path / "m.parquet"))


def test_a_column_without_values_takes_the_type_of_the_other_files(
    tmp_path: Path, put_table: Any
) -> None:
    # pandas makes up a type for what holds nothing: float64 for NaN, for an empty column, too.
    put_table(str(tmp_path / "m/1.parquet"), {"image_uri": ["a"], "side": pa.nulls(1, pa.int32())})
    put_table(str(tmp_path / "m/2.parquet"), {"image_uri": ["b"], "side": ["left"]})
    nothing = pd.DataFrame({"image_uri": [], "side": []})
    put_table(str(tmp_path / "m/3.parquet"), pa.Table.from_pandas(nothing))
    put_table(str(tmp_path / "m/4.parquet"), {"image_uri": ["c"], "side": pa.array([math.nan])})
    with pytest.raises(UserError, match=r"'side' holds double in 4\.parquet"):  # a value is one
        opened(str(tmp_path / "m"))
    put_table(
        str(tmp_path / "m/4.parquet"), {"image_uri": ["c"], "side": pa.nulls(1, pa.float64())}
    )
    (table,) = opened(str(tmp_path / "m")).tables(1000)
    assert table.to_pydict() == {"image_uri": ["a", "b", "c"], "side": [None, "left", None]}


def test_a_whole_number_that_is_no_type_of_a_value_changes_none(
    tmp_path: Path, put_table: Any
) -> None:
    put_table(str(tmp_path / "m/1.parquet"), {"image_uri": ["a"], "mm": pa.nulls(1, pa.int32())})
    put_table(str(tmp_path / "m/2.parquet"), {"image_uri": ["b"], "mm": [3.0]})
    assert opened(str(tmp_path / "m")).schema.field("mm").type == pa.float64()


def test_years_that_nanoseconds_do_not_reach_are_not_another_year(tmp_path: Path) -> None:
    # INT96, as Spark and Impala write times: 9999-12-23 would be read as 1816-03-22.
    when = pa.array([datetime(9999, 12, 23), datetime(2020, 1, 2)], pa.timestamp("us"))
    table = pa.table({"image_uri": ["a", "b"], "when": when})
    pq.write_table(table, tmp_path / "m.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(UserError, match=r"a year beyond 1678.*write it as timestamp\[us\]"):
        opened(str(tmp_path / "m.parquet"))
    pq.write_table(table[1:], tmp_path / "m.parquet", use_deprecated_int96_timestamps=True)
    (found,) = opened(str(tmp_path / "m.parquet")).tables(1000)
    assert found["when"].to_pylist() == [datetime(2020, 1, 2)]


def test_files_one_behind_the_other_are_refused(tmp_path: Path, put_table: Any) -> None:
    path = tmp_path / "m.parquet"
    put_table(str(path), {"image_uri": ["a PAR1PAR1"]})
    first = path.read_bytes()
    assert opened(str(path)).rows == 1
    put_table(str(path), {"image_uri": ["b PAR1PAR1"]})
    path.write_bytes(first + path.read_bytes())
    with pytest.raises(UserError, match="several Parquet files joined into one, of which"):
        opened(str(path))


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path, put_table: Any) -> None:
    put_table(str(tmp_path / "m/2.parquet"), {"image_uri": ["c"], "roi": [[0, 0, 1, 1]]})
    put_table(str(tmp_path / "m/1.parquet"), {"image_uri": ["a", "b"], "roi": pa.nulls(2)})
    (tmp_path / "m/readme.txt").write_text("no manifest")
    found = opened(str(tmp_path / "m"))
    assert [request.image_uri for request in asked(found)] == [
        str(tmp_path / "m" / name) for name in "abc"
    ]
    put_table(str(tmp_path / "m/3.parquet"), {"image_uri": ["d"], "rio": [[0, 0, 1, 1]]})
    with pytest.raises(UserError, match=r"3\.parquet and 1\.parquet differ in .*'rio', 'roi'"):
        opened(str(tmp_path / "m"))
    put_table(str(tmp_path / "m/3.parquet"), {"image_uri": [4], "roi": [[0, 0, 1, 1]]})
    with pytest.raises(UserError, match=r"column types differ .*: 'image_uri' holds int64 in 3"):
        opened(f"{tmp_path}/m/")


def test_all_faults_are_listed_at_once_up_to_twenty(load: Any) -> None:
    with pytest.raises(UserError, match=r"m\.parquet: 32 faults to correct") as caught:
        load(image_uri=pa.nulls(30, pa.string()), status=["x"] * 30, frame=["1"] * 30)
    assert caught.value.details == [
        "column 'status' is the name of a result column; rename it",
        "column 'frame' holds string; write it as an integer",
        *(f"row {row}: image_uri is missing; give every row one" for row in range(18)),
        "and 12 more",
    ]


def test_no_value_that_may_identify_is_shown(load: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(image_uri=["http://pacs/smith-1970", "s3://smith-1970"], roi=[[1], [5, 0, 5, 9]])
    assert caught.value.details == [
        "row 0: image_uri has a scheme that is not s3:// or file:///; give an s3:// URI or a path",
        "row 1: image_uri is not s3://bucket/key",
        "row 0: RoI has to be four finite numbers, or all null for the whole frame",
        "row 1: RoI is empty: x_min 5 is not below x_max 5",
    ]


def test_missing_image_uri_names_the_columns_there_are(load: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(image=["a"], roi=[None])
    assert caught.value.details == [
        "no column 'image_uri'; rename one of ['image', 'roi'], or add it"
    ]


def test_names_that_differ_in_case_alone_are_one_to_readers_of_the_results(load: Any) -> None:
    with pytest.raises(UserError, match="2 faults to correct before anything") as caught:
        load(image_uri=["a"], Status=["read"], ID=["1"], id=["1"])
    assert caught.value.details == [
        "column 'Status' is the name of a result column; rename it",
        "columns ['ID', 'id'] are the same column to DuckDB and Spark; rename all but one",
    ]


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["image_uri", "image_uri"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(UserError) as caught:
        opened(str(tmp_path / "m.parquet"))
    assert caught.value.details == ["column 'image_uri' appears 2 times; keep one"]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"image_uri": [1]}, "column 'image_uri' holds int64; write it as string"),
        ({"etag": [1]}, "column 'etag' holds int64; write it as string"),
        ({"frame": [1.5]}, "row 0: frame 1.5 must be a non-negative integer"),
        ({"frame": [math.inf]}, "row 0: frame inf must be a non-negative integer"),
        ({"frame": ["1"]}, "column 'frame' holds string; write it as an integer"),
        ({"frame": ["first"]}, "column 'frame' holds string; write it as an integer"),
        ({"roi": ["1,2,3,4"]}, "column 'roi' holds string; write it as a list of four numbers"),
        ({"roi": [["1", "2", "3", "4"]]}, "a list of four numbers"),
        ({"roi": [[3, 9, 9, 4]]}, "row 0: RoI is empty: y_min 9 is not below y_max 4"),
        (
            {"roi": [[0, 0.5, 9, 4]]},
            "row 0: RoI (0, 0.5, 9, 4) is not in whole pixels; round",
        ),
        ({"roi": [[-1, 0, 9, 4]]}, "row 0: RoI begins at (-1, 0), outside the frame"),
        ({"roi": [[0, -1, 9, 4]]}, "row 0: RoI begins at (0, -1), outside the frame"),
        ({name: ["1"] for name in ROI_COLUMNS}, "'roi_x_min' holds string; write it as a number"),
        ({"roi_x_min": [1]}, "without ['roi_y_min', 'roi_x_max', 'roi_y_max']; give all four"),
        ({"roi_x_min": [1], "roi": [None]}, "keep one form of the RoI"),
        ({"study_id": [["1"]]}, "'study_id' holds list<element: string>; write one id in each row"),
        (
            {"study_id": pa.array(["1"], pa.json_())},
            "column 'study_id' holds extension<arrow.json>; write one id in each row, as a string",
        ),
    ],
)
def test_faults_name_field_and_remedy(columns: dict[str, Any], fault: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": ["a.png"], **columns}), tmp_path / "m.parquet")
    with pytest.raises(UserError) as caught:
        opened(str(tmp_path / "m.parquet"))
    found = caught.value.details
    assert fault in found[0]
    assert len(found) == (4 if fault.startswith("'roi_x_min' holds") else 1)


def test_unreadable_manifests(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a Parquet file nor a folder"):
        opened(str(tmp_path / "none.parquet"))
    (tmp_path / "m.parquet").write_bytes(b"image_uri\na.png\n")
    with pytest.raises(UserError, match="not a Parquet file"):
        opened(str(tmp_path / "m.parquet"))
    buffers = pa.array(["ab"]).buffers()
    broken = pa.StringArray.from_buffers(1, buffers[1], pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"image_uri": broken}), tmp_path / "m.parquet")
    with pytest.raises(UserError, match="not a Parquet file"):
        opened(str(tmp_path / "m.parquet"))
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"image_uri": ["a.png"], "n": [1]}), path)
    kind = pq.read_metadata(path).metadata[b"ARROW:schema"]
    wide = base64.b64decode(kind).replace(b"\x40\0\0\0", b"\x80\0\0\0")
    path.write_bytes(path.read_bytes().replace(kind, base64.b64encode(wide)))  # as Polars' Int128
    with pytest.raises(UserError, match="Integers with more than 64 bits not implemented"):
        opened(str(path))


def test_digest_is_of_the_rows_and_not_of_the_files_layout(tmp_path: Path) -> None:
    table = pa.table({"a": [f"{n}" if n % 3 else None for n in range(40)], "b": range(40)})
    digests = set()
    for group in (40, 7, 13):
        pq.write_table(table, tmp_path / "t.parquet", row_group_size=group)
        read = pq.read_table(tmp_path / "t.parquet")
        digests.add(manifest.digest(read.slice(5, 20)))
    assert len(digests) == 1
    assert manifest.digest(table.slice(6, 20)) not in digests
    assert manifest.digest(table.slice(5, 20).rename_columns(["a", "c"])) not in digests


def test_tables_are_cut_anew_across_files_and_row_groups(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(100)]
    (tmp_path / "one").mkdir()
    pq.write_table(pa.table({"image_uri": names}), tmp_path / "one" / "a.parquet", row_group_size=9)
    (tmp_path / "two").mkdir()
    pq.write_table(pa.table({"image_uri": names[:33]}), tmp_path / "two" / "a.parquet")
    pq.write_table(pa.table({"image_uri": names[33:]}), tmp_path / "two" / "b.parquet")
    one, two = opened(str(tmp_path / "one")), opened(str(tmp_path / "two"))
    for found in (one, two):
        tables = list(found.tables(30))
        assert [table.num_rows for table in tables] == [30, 30, 30, 10]
        assert [name for table in tables for name in table["image_uri"].to_pylist()] == names
    assert (one.rows, one.sha256) == (two.rows, two.sha256)


def test_a_row_that_stands_twice_is_a_fault(load: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(
            image_uri=["a", "b", "a", "a", "a", "b"],
            roi=[[0, 0, 9, 9], None, [0, 0, 9, 8], [0, 0, 9, 9], [0, 0, 9, 9], None],
            frame=pa.array([None, 1, None, None, 0, 1]),
            study_id=["these", "may", "differ", "or", "be", "equal"],
        )
    assert caught.value.details == [
        "row 3: image, frame and RoI are row 0's; keep one",
        "row 5: image, frame and RoI are row 1's; keep one",
    ]


@pytest.mark.parametrize("column", ["frame", "roi_x_min"])
def test_a_row_that_stands_twice_is_found_whatever_nulls_the_pieces_hold(
    load: Any, column: str
) -> None:
    rows = 20_000  # more than are checked together; one null, in the second piece only
    columns: dict[str, list[Any]] = {"image_uri": [f"{row % 16_993}.png" for row in range(rows)]}
    if column != "frame":
        columns |= {name: [9 * (n > 1)] * rows for n, name in enumerate(ROI_COLUMNS)}
    columns[column] = [int(row >= 17_001) for row in range(rows)]  # one row is another's, row 7's
    for name in set(columns) - {"image_uri"}:
        columns[name][18_000] = None
    for row in range(16_993, 17_000):
        columns["image_uri"][row] = f"other-{row}.png"
    with pytest.raises(UserError) as caught:
        load(**columns)
    assert caught.value.details == ["row 17000: image, frame and RoI are row 7's; keep one"]


def test_rows_are_the_same_whatever_their_columns_are_written_as(load: Any, tmp_path: Path) -> None:
    same = ["a.png", "./a.png", str(tmp_path / "a.png"), f"file://{tmp_path}/a.png", "x/../a.png"]
    with pytest.raises(UserError) as caught:
        load(image_uri=[*same, "b.png"], roi=pa.array([[0.0, 0, 9, 9], [-0.0, 0, 9, 9]] * 3))
    assert caught.value.details == [
        f"row {row}: image, frame and RoI are row 0's; keep one" for row in range(1, 5)
    ]


def test_equal_hashes_alone_make_no_duplicate(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        checks, "hash_pandas_object", lambda frame, **_: pd.Series([7] * len(frame))
    )
    assert load(image_uri=["a", "b", "c"]).rows == 3
    with pytest.raises(UserError) as caught:
        load(image_uri=["a", "b", "a"])
    assert caught.value.details == ["row 2: image, frame and RoI are row 0's; keep one"]


edges = st.one_of(
    st.none(), st.floats(), st.integers(-3, 500).map(float), st.sampled_from([0.0, 0.5, math.nan])
)
rois = st.one_of(st.none(), st.tuples(edges, edges, edges, edges).map(list))


def _sound(roi: list[float | None]) -> bool:
    """The rule again, from the specification: whole, 0 <= min < max < 2**53."""
    x0, y0, x1, y1 = (math.nan if value is None else value for value in roi)
    if any(math.isfinite(value) and value % 1 for value in (x0, y0, x1, y1)):
        return False
    return 0 <= x0 < x1 < 2**53 and 0 <= y0 < y1 < 2**53


@given(st.lists(rois, min_size=1, max_size=12))
def test_every_unsound_roi_is_found_in_either_form(given_rois: list[Any]) -> None:
    unsound = [
        row
        for row, roi in enumerate(given_rois)
        if roi is not None and roi != [None] * 4 and not _sound(roi)
    ]
    four = {
        name: pa.array([None if roi is None else roi[n] for roi in given_rois], pa.float64())
        for n, name in enumerate(ROI_COLUMNS)
    }
    assert [int(line.split(":")[0][4:]) for line in _found(**four)] == unsound
    listed = [None if roi == [None] * 4 else roi for roi in given_rois]
    found = _found(roi=pa.array(listed, pa.list_(pa.float64())))
    assert [int(line.split(":")[0][4:]) for line in found] == unsound


sides = st.lists(st.integers(0, (1 << 53) - 1).map(float), min_size=2, max_size=2, unique=True)


@given(sides.map(sorted), sides.map(sorted))
def test_a_roi_reaches_the_archive_without_loss(x: list[float], y: list[float]) -> None:
    roi = [x[0], y[0], x[1], y[1]]
    assert _found(roi=pa.array([roi])) == []
    table = pa.table({"image_uri": ["a"], "roi": pa.array([roi])})
    request = manifest.requests(table, ".")[0]
    assert [float(edge) for edge in request.fields["roi"].split(",")] == roi


@given(st.text().filter(lambda text: text.strip() and "://" not in text))
def test_any_path_is_an_image_uri_and_fails_as_a_row(path: str) -> None:
    table = pa.table({"image_uri": [path]})
    assert problems(table) == []
    folder = str(Path("/no-such-folder"))
    uri = manifest.requests(table, folder)[0].image_uri
    assert uri == f"{folder}/{path}" or path.startswith("/")
    with pytest.raises(StorageError):
        objects.read(uri)


def test_a_locate_status_and_its_roi_must_fit(tmp_path: Path, put_table: Any) -> None:
    given = put_table(
        str(tmp_path / "m.parquet"),
        {
            "image_uri": ["a.png", "b.png", "c.png", "d.png", "e.png"],
            "roi": [[0, 0, 9, 9], None, [0, 0, 9, 9], None, None],
            "locate_status": ["ok", "ok", "none_found", "maybe", None],
        },
    )
    with pytest.raises(UserError) as raised, manifest.open_manifest(given, reserved=()):
        pass
    assert [line.partition(":")[0] for line in raised.value.details] == [
        "row 1",
        "row 2",
        "row 3",
        "row 4",
    ]
