"""run.json's scores and drift, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batch.report import drift
from tests.batch.conftest import put_table
from tests.batch.test_run import put_images, run


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    images = [b"p=0.0%d" % row for row in range(8)] + [b"p=0.97", b"bad"]
    uris = put_images(str(tmp_path / "of-smith"), *images)
    columns = {"image_uri": uris, "patient_id": [f"smith-{row}" for row in range(10)]}
    return put_table(str(tmp_path / "m.parquet"), columns)


def test_scores_are_counted_and_compared(tmp_path: Path, manifest: str, archive: Any) -> None:
    out = str(tmp_path / "out")
    summary = run(manifest, out, archive, shard_rows=4)
    assert summary.scores["malignancy"] == [5, 3, *[0] * 17, 1]
    assert summary.scores["alnm"] == [8, *[0] * 8, 1, *[0] * 10]
    reference = archive.score_reference["malignancy"]  # the upper half only
    assert summary.drift == {
        "training": {
            "malignancy": {
                **drift.compared(reference, summary.scores["malignancy"]),
                "ks": pytest.approx(8 / 9),
            }
        }
    }
    columns = {"image_uri": put_images(str(tmp_path / "new"), *[b"p=0.97"] * 9)}
    other = put_table(str(tmp_path / "n.parquet"), columns)
    later = run(other, out, archive, date="2026-11-24")
    assert set(later.drift) == {"training", "run of 2026-11-22"}
    assert later.drift["run of 2026-11-22"]["malignancy"]["ks"] == pytest.approx(8 / 9)
    # The earlier one again: a run of a later date is none before it.
    assert set(run(manifest, out, archive, shard_rows=4).drift) == {"training"}
    archive.score_reference = {}
    assert run(manifest, str(tmp_path / "b"), archive).drift == {}


def test_where_each_probability_speaks_of_every_lesion_the_page_says_nothing(
    tmp_path: Path, manifest: str, archive: Any
) -> None:
    archive.given = dict.fromkeys(archive.heads)
    run(manifest, str(tmp_path / "out"), archive)
    (page,) = (tmp_path / "out").glob("_runs/*/*/report.html")
    assert "given" not in page.read_text()


def test_the_page_shows_the_run_and_no_one_in_it(
    tmp_path: Path, manifest: str, archive: Any
) -> None:
    out = tmp_path / "out"
    run(manifest, str(out), archive)
    (page,) = out.glob("_runs/date=2026-11-22/model=fake-1.0/report.html")
    text = page.read_text()
    assert "<title>sonode: fake 1.0, 2026-11-22</title>" in text
    assert '<td>image_truncated</td><td class="n">1</td>' in text
    assert "1 (10.00%)" in text
    assert text.count("<svg") == 2
    assert "<figcaption>malignancy: probability of 9 rows" in text
    assert "<figcaption>alnm given malignant: probability of 9 rows" in text
    assert "is about malignant lesions only" in text
    assert "line: what the training was judged on" in text
    assert "the card has no reference" in text  # of the other head
    assert "Scores have shifted" in text
    record = (page.parent / "run.json").read_text()
    assert json.loads(record)["given"] == {"malignancy": None, "alnm": "malignant"}
    for part in out.glob("date=*/*/*.parquet"):
        metadata = pq.read_metadata(part).metadata
        assert json.loads(metadata[b"given"]) == {"malignancy": None, "alnm": "malignant"}
    for told in (text, record):
        assert "smith" not in told
        assert ".png" not in told


def test_a_page_of_nothing(tmp_path: Path, archive: Any) -> None:
    uri = put_table(str(tmp_path / "m.parquet"), {"image_uri": ["none.png"]})
    summary = run(uri, str(tmp_path / "out"), archive)
    assert summary.drift == {}
    (page,) = (tmp_path / "out").glob("_runs/*/*/report.html")
    assert "Nothing to compare with" in page.read_text()
