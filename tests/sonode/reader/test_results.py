"""The list of a run: filters and orders with known answers, and the images of its rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.results import schema
from batch.storage import objects
from sonode.console import UserError
from sonode.demo.local_s3 import LocalS3
from sonode.reader.results import Results
from tests.conftest import encode
from tests.sonode.reader.conftest import MadeUp, body, serving

PROBABILITIES = [0.2, 0.9, 0.6, 0.55]


def run(
    folder: Path, version: str, shift: float, failed: int, uris: list[str], x_min: int = 1
) -> str:
    """Results of four rows, one of which failed; a row is uncertain from 0.52 to 0.58."""
    rows: list[dict[str, Any]] = []
    for number, probability in enumerate(PROBABILITIES):
        if number == failed:
            rows.append(schema.failed("object_missing", "fetch", "there is no such file"))
            continue
        told = body([x_min, 2, 30, 40], probability + shift)
        told["model"]["version"] = version
        told["heads"]["malignancy"]["uncertain"] = 0.52 < probability + shift < 0.58
        rows.append(schema.scored(told, etag="sha256:0", heatmap_uris={}))
    columns = schema.fields({"malignancy": ("benign", "malignant")}, with_heatmaps=False)
    others = {"birads_probability": [0.9] * 4, "birads_label": ["5"] * 4}  # of another model
    manifest = pa.table({"image_uri": uris, "study_id": ["a", "b", "c", None], **others})
    place = folder / f"model=tiny-{version}"
    place.mkdir(parents=True)
    pq.write_table(schema.table(manifest, rows, columns), place / "part-0.parquet")
    return str(place)


URIS = ["0.png", "1.png", "2.png", "/none.png"]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    runs = [run(tmp_path, "1.0", 0.0, 3, URIS), run(tmp_path, "1.1", -0.15, 3, URIS)]
    return Results(runs, str(tmp_path))


def numbers(results: Results, which: str, order: str) -> list[int]:
    found = results.rows(which, order, 0)
    assert found["total"] == len(found["rows"])
    return [row["number"] for row in found["rows"]]


def test_rows_are_filtered_and_ordered(results: Results) -> None:
    """Probabilities .2 .9 .6 and a failure; then .05 .75 .45 and the same failure."""
    assert results.heads == ["malignancy"]
    assert numbers(results, "all", "manifest") == [0, 1, 2, 3]
    assert numbers(results, "failed", "manifest") == [3]
    assert numbers(results, "flipped", "manifest") == [2]
    assert numbers(results, "uncertain", "manifest") == []
    assert numbers(results, "all", "high:malignancy") == [1, 2, 0, 3]
    assert numbers(results, "all", "change:malignancy")[-1] == 3
    assert numbers(results, "none", "manifest") == []
    (row,) = results.rows("flipped", "manifest", 0)["rows"]
    assert row["names"] == ["c"]
    assert [it["heads"]["malignancy"]["label"] for it in row["runs"]] == ["malignant", "benign"]
    assert results.rows("all", "manifest", 3)["rows"][0]["runs"][0] == {
        "status": "failed",
        "message": "there is no such file",
        "heads": {},
    }


def test_uncertain_rows(tmp_path: Path) -> None:
    alone = Results([run(tmp_path, "1.0", 0.0, 0, URIS)], "")
    assert numbers(alone, "uncertain", "manifest") == [3]
    assert numbers(alone, "failed", "manifest") == [0]
    assert numbers(alone, "flipped", "manifest") == []


def test_a_rows_image_opens_with_its_box(
    results: Results, tmp_path: Path, frame: np.ndarray
) -> None:
    (tmp_path / "1.png").write_bytes(encode(frame))
    with serving(MadeUp(), results=results) as page:
        client = page.client
        assert client.get("rows?which=failed").json()["total"] == 1
        opened = client.post("rows/1").json()
        assert (opened["roi"], opened["frame"], opened["width"]) == ([1, 2, 30, 40], 0, 120)
        assert opened["changed"] is True  # the run had other bytes
        assert client.get(f"images/{opened['id']}/0.png").status_code == 200
        for number, said in (
            (0, "no such file"),
            (3, "no such file"),
            (4, "none of that number"),
        ):
            answer = client.post(f"rows/{number}")
            assert answer.status_code == 404
            assert said in answer.json()["message"]
            assert str(tmp_path) not in answer.text


@pytest.mark.live
def test_a_rows_image_opens_from_an_object_store(
    server: LocalS3, tmp_path: Path, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    objects.write("s3://studies/reader/1.png", encode(frame))
    uris = ["s3://studies/reader/none.png", "s3://studies/reader/1.png", *URIS[2:]]
    results = Results([run(tmp_path, "1.0", 0.0, 3, uris)], "")
    with serving(MadeUp(), results=results) as page:
        opened = page.client.post("rows/1").json()
        assert (opened["roi"], opened["width"]) == ([1, 2, 30, 40], 120)
        missing = page.client.post("rows/0")
        assert (missing.status_code, missing.json()["code"]) == (404, "no_image")


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first = run(tmp_path, "1.0", 0.0, 3, URIS)
    other = run(tmp_path / "other", "1.0", 0.0, 3, ["9.png", *URIS[1:]])
    other_box = run(tmp_path / "box", "1.0", 0.0, 2, URIS, x_min=5)
    for second in (other, other_box):
        with pytest.raises(UserError, match="other images"):
            Results([first, second], "")
    run(tmp_path, "1.1", 0.0, 3, URIS)
    with pytest.raises(UserError, match="several models"):
        Results([str(tmp_path)], "")
    with pytest.raises(UserError, match="has no results"):
        Results([str(tmp_path / "none")], "")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        Results([str(tmp_path / "bad")], "")
