"""Scores per lesion, study and patient, added up by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.report.units import Unit, columns_of, described
from batch.storage import objects
from sonode.console import UserError
from tests.batch.conftest import put_table
from tests.batch.test_run import put_images, run

TWO = {"malignancy": ("benign", "malignant")}


def units(out: Path, column: str) -> list[dict[str, Any]]:
    (file,) = out.glob(f"_units/*/*/{column}.parquet")
    return pq.read_table(file).to_pylist()


def test_the_mean_and_the_maximum_of_each_lesion_study_and_patient(
    tmp_path: Path, archive: Any
) -> None:
    images = [b"p=0.2", b"p=0.6", b"bad", b"p=0.5", b"bad", b"p=0.1"]
    columns = {
        "image_uri": put_images(str(tmp_path), *images),
        "patient_id": ["a", "a", "a", "b", "b", "b"],
        "study_id": [1, 1, 2, 3, 3, 3],
        "lesion_id": ["L1", "L1", "L2", "L1", "L1", None],
    }
    manifest, out = put_table(str(tmp_path / "m.parquet"), columns), tmp_path / "out"
    summary = run(manifest, str(out), archive)

    def row(key: dict[str, Any], n: int, ok: int, mean: float | None, most: float | None) -> Any:
        half = [None if it is None else it / 2 for it in (mean, most)]  # the archive's second head
        counts = {"n_images": n, "n_scored": ok, "n_failed": n - ok}
        names = [f"{head}_probability" for head in ("malignancy", "alnm")]
        values = zip(names, ((mean, most), half), strict=True)
        found = {
            f"{name}_{it}": v
            for name, its in values
            for it, v in zip(("mean", "max"), its, strict=True)
        }
        return {**key, **counts, **found}

    assert units(out, "lesion_id") == [
        row({"patient_id": "a", "lesion_id": "L1"}, 2, 2, 0.4, 0.6),
        row({"patient_id": "a", "lesion_id": "L2"}, 1, 0, None, None),
        row({"patient_id": "b", "lesion_id": "L1"}, 2, 1, 0.5, 0.5),
    ]
    assert units(out, "study_id") == [
        row({"study_id": 1}, 2, 2, 0.4, 0.6),
        row({"study_id": 2}, 1, 0, None, None),
        row({"study_id": 3}, 3, 2, 0.3, 0.5),
    ]
    assert units(out, "patient_id")[1] == row({"patient_id": "b"}, 3, 2, 0.3, 0.5)
    told = summary.units["lesion_id"]
    assert told == {
        "file": "_units/date=2026-11-22/model=fake-1.0/lesion_id.parquet",
        "by": ["patient_id", "lesion_id"],
        "aggregates": ["mean", "max"],
        "units": 3,
        "units_with_failed_images": 2,
        "units_spelt_alike": 0,
        "rows_without_id": 1,
    }
    (record,) = out.glob("_runs/*/*/run.json")
    assert json.loads(record.read_text())["units"] == summary.units
    (page,) = out.glob("_runs/*/*/report.html")
    assert "Lesions, studies, patients" in page.read_text()
    metadata = pq.read_metadata(out / told["file"]).metadata
    assert json.loads(metadata[b"aggregates"]) == ["mean", "max"]
    assert len(pd.read_parquet(out)) == len(images)  # readers of the results pass it over

    # The images that were missing arrive: the same run again counts them.
    objects.write(columns["image_uri"][2], b"p=0.9")
    assert run(manifest, str(out), archive).units["lesion_id"]["units_with_failed_images"] == 1
    assert units(out, "lesion_id")[1]["malignancy_probability_max"] == 0.9


def test_without_such_a_column_there_is_no_file(tmp_path: Path, archive: Any) -> None:
    manifest = put_table(
        str(tmp_path / "m.parquet"), {"image_uri": put_images(str(tmp_path), b"p=0.2")}
    )
    summary = run(manifest, str(tmp_path / "out"), archive)
    assert summary.units == {}
    assert not (tmp_path / "out" / "_units").exists()


def test_an_empty_manifest_has_no_unit(tmp_path: Path, archive: Any) -> None:
    text = pa.array([], pa.string())
    manifest = put_table(
        str(tmp_path / "m.parquet"), pa.table({"image_uri": text, "lesion_id": text})
    )
    summary = run(manifest, str(tmp_path / "out"), archive)
    assert summary.units["lesion_id"]["units"] == 0
    assert units(tmp_path / "out", "lesion_id") == []


def test_ids_in_lists_are_refused(tmp_path: Path, archive: Any) -> None:
    columns = {"image_uri": put_images(str(tmp_path), b"p=0.2"), "lesion_id": [["a", "b"]]}
    manifest = put_table(str(tmp_path / "m.parquet"), columns)
    with pytest.raises(UserError) as caught:
        run(manifest, str(tmp_path / "out"), archive)
    assert "lesion_id" in str(caught.value.details)


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["a/ä", "a/ä", None, "", " \t"]),
        pa.array(["a/ä", "a/ä", None, "", " \t"]).dictionary_encode(),
        pa.array([7.0, 7.0, None, np.nan, np.nan]),
    ],
    ids=["text", "category", "number"],
)
def test_blank_ids_are_no_unit(ids: pa.Array) -> None:
    """Nor are lesions of patients that are not named: two may have a lesion of the same id."""

    def found(**columns: pa.Array) -> tuple[int, list[tuple[Any, ...]]]:
        rows = {"status": ["ok"] * 5, "malignancy_probability": [0.1, 0.3, 0.5, 0.7, 0.9]}
        unit = Unit("lesion_id", columns, TWO)
        unit.add(pa.table({**columns, **rows}))
        return unit.without_id, [tuple(row.values()) for row in unit.table().to_pylist()]

    assert found(lesion_id=ids) == (3, [(ids[0].as_py(), 2, 2, 0, 0.2, 0.3)])
    one = pa.array([1] * 5)
    assert found(lesion_id=one, patient_id=ids) == (3, [(ids[0].as_py(), 1, 2, 2, 0, 0.2, 0.3)])


def test_units_that_differ_by_spelling_alone_are_counted_and_not_merged() -> None:
    ids = pa.array(["M\u00fcller", "Mu\u0308ller", "b", "b ", "B", "c", "007", "7"])
    rows = {"status": ["ok"] * 8, "malignancy_probability": [0.5] * 8}
    unit = Unit("patient_id", ["patient_id"], TWO)
    unit.add(pa.table({"patient_id": ids, **rows}))
    told = described(unit, unit.table(), "file")
    assert (told["units"], told["units_spelt_alike"]) == (8, 4)  # of 4 people


def test_parts_are_added_up_as_they_come() -> None:
    """As pandas does with all rows at once; more rows than are held at a time."""
    rng = np.random.default_rng(3)
    whole = pd.DataFrame(
        {
            "lesion_id": rng.integers(0, 5000, 400_000),
            "status": np.where(rng.random(400_000) < 0.1, "failed", "ok"),
            "malignancy_probability": rng.integers(0, 1025, 400_000) / 1024,  # sums are exact
        }
    )
    whole.loc[whole["status"] == "failed", "malignancy_probability"] = np.nan
    unit = Unit("lesion_id", whole.columns, TWO)
    for start in range(0, len(whole), 40_000):
        unit.add(pa.Table.from_pandas(whole[start : start + 40_000], preserve_index=False))
    found = unit.table().to_pandas()
    by_id = whole.groupby("lesion_id")
    expected = by_id["malignancy_probability"].agg(["size", "count", "mean", "max"])
    assert found["lesion_id"].tolist() == expected.index.tolist()
    assert (found["n_images"].to_numpy() == expected["size"].to_numpy()).all()
    assert (found["n_scored"].to_numpy() == expected["count"].to_numpy()).all()
    for name in ("mean", "max"):
        assert found[f"malignancy_probability_{name}"].tolist() == expected[name].tolist()


def test_a_head_of_three_labels_has_each_labels_mean_and_maximum() -> None:
    heads = {"subtype": ("A", "B", "C")}
    assert columns_of(["image_uri", "study_uid"], heads) == ["study_uid", "subtype_distribution"]
    distributions = [[("A", 0.5), ("B", 0.25), ("C", 0.25)], [("A", 0.0), ("B", 0.75), ("C", 0.25)]]
    kind = pa.map_(pa.string(), pa.float64())
    part = pa.table(
        {
            "study_uid": pa.array(["s", "s", "t"]).dictionary_encode(),
            "status": ["ok", "ok", "failed"],
            "subtype_distribution": pa.array([*distributions, None], kind),
        }
    )
    unit = Unit("study_uid", part.column_names, heads)
    unit.add(part)
    first, second = unit.table().to_pylist()
    assert dict(first["subtype_distribution_mean"]) == {"A": 0.25, "B": 0.5, "C": 0.25}
    assert dict(first["subtype_distribution_max"]) == {"A": 0.5, "B": 0.75, "C": 0.25}
    assert (second["n_failed"], second["subtype_distribution_mean"]) == (1, None)
