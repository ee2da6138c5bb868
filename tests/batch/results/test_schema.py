from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch.results import schema as results

BODY: dict[str, Any] = {
    "model": {"name": "n", "version": "1", "sha256": "ab", "engine": "eager"},
    "roi": [0, 1, 2, 3],
    "heads": {
        "malignancy": {
            **{"probability": 0.1 + 0.2, "threshold": 0.5, "label": "benign"},
            **dict.fromkeys(("spread", "uncertain", "label_set")),
        },
    },
    "consistent": True,
    "warnings": ["whole_frame"],
    "heatmaps": {},
    "out_of_distribution": None,
}


def test_the_row_contract() -> None:
    columns = results.fields({"malignancy": ("n", "y")}, with_heatmaps=True)
    shard = pa.table(
        {
            "image_uri": ["a", "b"],
            "taken": pa.array([datetime(2026, 1, 2, tzinfo=UTC), None], pa.timestamp("ns", "UTC")),
        }
    )
    rows = [
        {
            **results.scored(BODY, etag="e1", heatmap_uris={"malignancy": "s3://b/h.png"}),
            "scored_at": datetime(2026, 1, 3, tzinfo=UTC),
            "fetch_ms": 1.5,
        },
        {**results.failed("image_truncated", "preprocess", "cut short"), "image_etag": "e2"},
    ]
    table = results.table(shard, rows, columns)
    assert table.select(shard.column_names) == shard
    assert [(field.name, str(field.type)) for field in table.schema][2:] == [
        ("status", "string"),
        ("code", "string"),
        ("stage", "string"),
        ("message", "string"),
        ("roi_used", "list<item: int32>"),
        ("malignancy_probability", "double"),
        ("malignancy_spread", "double"),
        ("malignancy_label", "string"),
        ("malignancy_threshold", "double"),
        ("malignancy_uncertain", "bool"),
        ("malignancy_label_set", "list<item: string>"),
        ("consistent", "bool"),
        ("warnings", "list<item: string>"),
        ("out_of_distribution", "bool"),
        ("out_of_distribution_distance", "double"),
        ("model_name", "string"),
        ("model_version", "string"),
        ("model_sha256", "string"),
        ("engine", "string"),
        ("image_etag", "string"),
        ("scored_at", "timestamp[ms, tz=UTC]"),
        ("fetch_ms", "float"),
        ("preprocess_ms", "float"),
        ("inference_ms", "float"),
        ("malignancy_heatmap_uri", "string"),
    ]
    scored, failed = table.drop(shard.column_names).to_pylist()
    assert scored == {
        "status": "ok",
        "code": None,
        "stage": None,
        "message": None,
        "roi_used": [0, 1, 2, 3],
        "malignancy_probability": 0.30000000000000004,  # not rounded
        "malignancy_spread": None,
        "malignancy_label": "benign",
        "malignancy_threshold": 0.5,
        "malignancy_uncertain": None,
        "malignancy_label_set": None,
        "consistent": True,
        "warnings": ["whole_frame"],
        "out_of_distribution": None,
        "out_of_distribution_distance": None,
        "model_name": "n",
        "model_version": "1",
        "model_sha256": "ab",
        "engine": "eager",
        "image_etag": "e1",
        "scored_at": datetime(2026, 1, 3, tzinfo=UTC),
        "fetch_ms": 1.5,
        "preprocess_ms": None,
        "inference_ms": None,
        "malignancy_heatmap_uri": "s3://b/h.png",
    }
    assert {name: value for name, value in failed.items() if value is not None} == {
        "status": "failed",
        "code": "image_truncated",
        "stage": "preprocess",
        "message": "cut short",
        "image_etag": "e2",
    }


def test_a_row_says_what_is_uncertain_and_what_is_unlike_the_training() -> None:
    sure = {
        "heads": {
            "malignancy": {
                **BODY["heads"]["malignancy"],
                "spread": 0.02,
                "uncertain": True,
                "label_set": {"labels": ["benign", "malignant"], "level": 0.9},
            }
        },
        "out_of_distribution": {"flagged": True, "distance": 3.5, "limit": 2.0},
    }
    row = results.scored({**BODY, **sure}, etag="e", heatmap_uris={})
    assert row["malignancy_spread"] == 0.02
    assert row["malignancy_uncertain"] is True
    assert row["malignancy_label_set"] == ["benign", "malignant"]
    assert row["out_of_distribution"] is True
    assert row["out_of_distribution_distance"] == 3.5


def test_heatmap_columns_only_where_asked() -> None:
    names = [
        field.name
        for field in results.fields({"a": ("n", "y"), "b": ("n", "y")}, with_heatmaps=False)
    ]
    assert not [name for name in names if "heatmap" in name]
    names = [
        field.name
        for field in results.fields({"a": ("n", "y"), "b": ("n", "y")}, with_heatmaps=True)
    ]
    assert names[-2:] == ["a_heatmap_uri", "b_heatmap_uri"]


def test_a_row_too_few_is_an_error() -> None:
    columns = results.fields({"a": ("n", "y")}, with_heatmaps=False)
    with pytest.raises(pa.ArrowInvalid):
        results.table(pa.table({"image_uri": ["a", "b"]}), [results.failed("c", "s", "m")], columns)


def test_read_takes_the_parts_in_order_and_nothing_else(tmp_path: Path, put_table: Any) -> None:
    place = tmp_path / "date=2026-01-02" / "model=m-1"
    put_table(str(place / "part-00001-aa.parquet"), {"n": [3]})
    put_table(str(place / "part-00000-ff.parquet"), {"n": [1, 2]})
    put_table(str(tmp_path / "date=2026-01-03" / "model=m-1" / "part-00000-ff.parquet"), {"n": [4]})
    put_table(str(tmp_path / "_runs" / "x.parquet"), {"n": [9]})
    (place / ".part-00002-bb.parquet.0.partial").write_bytes(b"half")
    (tmp_path / "run.json").write_text("{}")
    assert results.read(str(tmp_path))["n"].to_pylist() == [1, 2, 3, 4]
