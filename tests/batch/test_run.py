from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batch.plan
import batch.run
from batch.results import schema as results
from batch.storage import objects
from batch.storage.errors import AccessDenied
from sonode import console
from sonode.console import UserError
from tests.batch.conftest import FakeArchive

MODEL = {"name": "fake", "version": "1.0", "sha256": "ab" * 32}
PLACE = "date=2026-11-22/model=fake-1.0"


def run(manifest: str, out: str, archive: Any, **options: Any) -> batch.run.RunSummary:
    options = {
        "explain": None,
        "batch_size": 2,
        "shard_rows": 3,
        "date": "2026-11-22",
        **options,
    }
    return batch.run.score(manifest, out, archive, progress=console.progress, **options)


def put_images(folder: str, *images: bytes) -> list[str]:
    uris = [objects.join(folder, f"images/{n}.png") for n in range(len(images))]
    for uri, image in zip(uris, images, strict=True):
        objects.write(uri, image)
    return uris


def test_every_row_has_one_result_in_order_and_faults_stay_alone(
    folder: str, archive: Any, put_table: Any
) -> None:
    uris = put_images(folder, b"p=0.25", b"p=0.5", b"truncated", b"p=0.75", b"p=1.0", b"p=0.1")
    etags = [objects.read(uri).etag for uri in uris]
    objects.write(uris[4], b"p=0.9")  # changed after the manifest was written
    uris.insert(1, objects.join(folder, "images/none.png"))
    manifest = put_table(
        objects.join(folder, "m.parquet"),
        {
            "study_id": ["s0", "s1", "s2", "s3", "s4", "s5", "s6"],
            "image_uri": [*uris[:-1], "images/5.png"],
            "roi": [[0, 0, 9, 9], None, None, None, [0, 0, 101, 9], None, None],
            "etag": [etags[0], None, None, None, None, etags[4], None],
        },
    )
    out = objects.join(folder, "out")
    summary = run(manifest, out, archive)

    table = results.read(out)
    assert table.column_names[:4] == ["study_id", "image_uri", "roi", "etag"]
    rows = table.to_pylist()
    assert [row["study_id"] for row in rows] == ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert [(row["code"], row["stage"]) for row in rows] == [
        (None, None),
        ("object_missing", "fetch"),
        (None, None),
        ("image_truncated", "preprocess"),
        ("roi_outside", "preprocess"),
        ("object_changed", "fetch"),
        (None, None),
    ]
    p = [0.25, None, 0.5, None, None, None, 0.1]
    assert [row["malignancy_probability"] for row in rows] == p
    assert [row["alnm_probability"] for row in rows] == [x and x / 2 for x in p]
    assert rows[0]["roi_used"] == [0, 0, 9, 9]
    assert rows[0]["image_etag"] == etags[0]
    assert rows[2]["malignancy_label"] == "positive"
    assert rows[2]["warnings"] == ["whole_frame"]
    assert (rows[4]["message"], rows[4]["image_etag"]) == ("roi_outside!", etags[3])

    assert summary.rows == 7
    assert summary.by_status == {"ok": 3, "failed": 4}
    assert summary.by_code == dict.fromkeys(
        ["image_truncated", "object_changed", "object_missing", "roi_outside"], 1
    )
    assert (summary.model, summary.engine, summary.scored) == (MODEL, "eager", 7)
    found = objects.list_files(out, deep=True)
    shape = re.compile(rf"{out}/{PLACE}/part-0000(\d)-[0-9a-f]{{32}}\.parquet")
    assert [shape.sub(r"\1", name) for name in found] == ["0", "1", "2"]
    assert (summary.parts, summary.dataset, summary.date) == (3, PLACE, "2026-11-22")
    runs = objects.join(out, f"_runs/{PLACE}")
    assert [uri.removeprefix(f"{runs}/") for uri in objects.list_files(runs)] == [
        *("report.html", "run.json", "started.json"),
    ]
    record = json.loads(objects.read(objects.join(runs, "run.json")).data)
    assert record == json.loads(json.dumps(vars(summary)))
    assert set(record["seconds"]) == {"fetch", "preprocess", "inference", "heatmaps", "write"}
    assert set(record["versions"]) >= {"sonode", "torch", "pyarrow"}
    assert record["started"] <= record["finished"]
    assert record["started"].endswith("+00:00")


def test_rows_are_scored_in_batches_as_torchserve_would_get_them(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    uris = put_images(str(tmp_path), *[b"p=0.5"] * 7)
    manifest = put_table(
        str(tmp_path / "m.parquet"),
        {"image_uri": uris, "roi": [[0, 1, 2, 3]] + [None] * 6, "frame": [None] * 6 + [4]},
    )
    run(manifest, str(tmp_path / "out"), archive, batch_size=2, shard_rows=5, explain="gradcam")
    assert sorted(len(call) for call in archive.calls) == [1, 2, 2, 2]  # of shards of 5 and 2
    rows = [row for call in archive.calls for row in call]
    (first,) = [row for row in rows if "roi" in row]
    (last,) = [row for row in rows if "frame" in row]
    assert first == {"image": b"p=0.5", "roi": "0,1,2,3", "explain": "gradcam"}
    assert last == {"image": b"p=0.5", "frame": "4", "explain": "gradcam"}


def test_an_archive_that_loses_an_outcome_fails_the_rows(
    tmp_path: Path, archive: Any, put_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = put_table(
        str(tmp_path / "m.parquet"), {"image_uri": put_images(str(tmp_path), b"p=0", b"p=1")}
    )
    monkeypatch.setattr(archive, "score_prepared", lambda rows: [])
    summary = run(manifest, str(tmp_path / "out"), archive)
    assert summary.by_code == {"inference_failed": 2}


def test_heat_maps_lie_beside_the_results_under_names_of_content(
    folder: str, archive: Any, put_table: Any
) -> None:
    uris = put_images(folder, b"p=0.5", b"p=0.5", b"p=0.25", b"bad")
    manifest = put_table(
        objects.join(folder, "m.parquet"), {"image_uri": uris, "study_id": ["smith"] * 4}
    )
    out = objects.join(folder, "out")
    run(manifest, out, archive, explain="gradcam")
    rows = results.read(out).to_pylist()
    assert [objects.read(row["alnm_heatmap_uri"]).data for row in rows[:3]] == [
        b"alnm 0.5 [0, 0, 100, 100]",
        b"alnm 0.5 [0, 0, 100, 100]",
        b"alnm 0.25 [0, 0, 100, 100]",
    ]
    assert rows[3]["alnm_heatmap_uri"] is None
    made = objects.list_files(objects.join(out, "_heatmaps"))
    assert len(made) == 4  # two heads of two different images
    assert {uri.rpartition("/")[2][32:] for uri in made} == {"-malignancy.png", "-alnm.png"}


def _parts(out: str) -> set[str]:
    return {uri.removeprefix(out) for uri in objects.list_files(out, deep=True)}


def rows_of(out: str) -> list[dict[str, Any]]:
    """The results without what the clock gives."""
    clock = ["scored_at", "fetch_ms", "preprocess_ms", "inference_ms"]
    return results.read(out).drop(clock).to_pylist()  # type: ignore[no-any-return]


def check_heatmaps(out: str) -> None:
    """Each scored row has the maps of its image, of both heads, where its URIs say."""
    for row in rows_of(out):
        for head in FakeArchive.heads:
            uri = row[f"{head}_heatmap_uri"]
            assert (uri is not None) == (row["status"] == results.OK)
            if uri is not None:
                its = f"{head} {row['malignancy_probability']} [0, 0, 100, 100]"
                assert objects.read(uri).data == its.encode()


def test_parts_are_named_by_what_went_into_them(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    uris = put_images(str(tmp_path), *(b"p=0.%d" % n for n in range(7)))
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    run(manifest, a, archive)
    run(manifest, b, archive)
    assert rows_of(a) == rows_of(b)
    assert _parts(a) == _parts(b)
    run(manifest, c, archive, explain="gradcam")
    archive.sha256 = "cd" * 32
    run(manifest, d, archive)
    assert not _parts(a) & (_parts(c) | _parts(d))


def test_an_empty_manifest_gives_results_with_all_columns(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": pa.array([], pa.string())})
    summary = run(manifest, str(tmp_path / "out"), archive)
    assert (summary.rows, summary.by_status) == (0, {"ok": 0, "failed": 0})
    table = results.read(str(tmp_path / "out"))
    assert table.num_rows == 0
    assert "malignancy_probability" in table.column_names


def test_columns_of_the_manifest_that_are_results_are_refused(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    columns = {"image_uri": ["a"], "alnm_probability": [0.5], "alnm_heatmap_uri": ["x"]}
    manifest = put_table(str(tmp_path / "m.parquet"), columns)
    with pytest.raises(UserError) as caught:
        run(manifest, str(tmp_path / "out"), archive, explain="gradcam")
    assert [line.split("'")[1] for line in caught.value.details] == [
        "alnm_probability",
        "alnm_heatmap_uri",
    ]
    assert not (tmp_path / "out").exists()


def test_progress_is_told_of_every_row(tmp_path: Path, archive: Any, put_table: Any) -> None:
    uris = put_images(str(tmp_path), b"p=0.5", b"bad", b"p=0.5")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": [*uris, "none.png"]})
    seen = []

    def progress(items: Iterator[Any], *, total: int, what: str) -> Iterator[Any]:
        for item in items:
            seen.append((item, total, what))
            yield item

    batch.run.score(
        manifest, str(tmp_path / "out"), archive, explain=None, batch_size=9, progress=progress
    )
    assert sorted(str(item[0]) for item in seen) == [
        *("None", "None", "image_truncated", "object_missing"),
    ]
    assert {item[1:] for item in seen} == {(4, "images")}


@pytest.mark.live
def test_places_that_cannot_be_used_are_found_before_scoring(
    s3: str, archive: Any, put_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = put_table(f"{s3}/m.parquet", {"image_uri": put_images(s3, b"p=0.5")})
    with pytest.raises(UserError, match=r"results cannot .* bucket 'no-out' at .* does not exist"):
        run(manifest, "s3://no-out/x", archive)
    with pytest.raises(UserError, match=r"manifest .* bucket 'no-in' at .* does not exist"):
        run("s3://no-in/m.parquet", f"{s3}/out", archive)
    other = put_table(f"{s3}/n.parquet", {"image_uri": ["s3://no-images/x"]})
    with pytest.raises(UserError, match=r"bucket 'no-images' at .* does not exist"):
        run(other, f"{s3}/out", archive)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY does not belong"):
        run(manifest, f"{s3}/out", archive)
    assert archive.calls == []


def test_a_place_that_may_only_be_written_is_refused_before_scoring(
    tmp_path: Path, archive: Any, put_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there has to be read: which run has the place, and what its parts hold."""
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": ["a.png"]})

    def denied(uri: str) -> bool:
        raise AccessDenied("not allowed there")

    monkeypatch.setattr(objects, "exists", denied)
    with pytest.raises(UserError, match=r"results cannot be written to .*: not allowed there"):
        run(manifest, str(tmp_path / "out"), archive)
    assert archive.calls == []


@pytest.mark.live
def test_credentials_that_end_within_a_run_end_the_run(
    s3: str, archive: Any, put_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = put_table(f"{s3}/m.parquet", {"image_uri": put_images(s3, *[b"p=0.5"] * 6)})
    score = archive.score_prepared

    def score_and_revoke(rows: Any) -> Any:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "revoked")
        return score(rows)

    monkeypatch.setattr(archive, "score_prepared", score_and_revoke)
    with pytest.raises(UserError, match="AWS_ACCESS_KEY_ID is not known"):
        run(manifest, f"{s3}/out", archive)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key")
    monkeypatch.setattr(archive, "score_prepared", score)
    assert objects.list_files(f"{s3}/out", deep=True) == []
    assert run(manifest, f"{s3}/out", archive).by_status == {"ok": 6, "failed": 0}


def test_an_unknown_method_is_refused_before_anything_is_read(tmp_path: Path, archive: Any) -> None:
    with pytest.raises(UserError, match="--explain magic:alnm: no such method; give gradcam"):
        run(str(tmp_path / "none.parquet"), str(tmp_path / "out"), archive, explain="magic:alnm")


@pytest.mark.parametrize(
    ("allowed", "stops"), [("2", True), ("3", False), ("24%", True), ("25%", False)]
)
def test_too_many_failures_stop_the_run(
    tmp_path: Path, archive: Any, put_table: Any, allowed: str, stops: bool
) -> None:
    uris = put_images(str(tmp_path), *[b"bad"] * 3, *[b"p=0.5"] * 9)
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = str(tmp_path / "out")
    if stops:
        with pytest.raises(batch.run.Stopped, match=f"s {allowed} .image_truncated 3."):
            run(manifest, out, archive, max_failures=allowed)
        assert not list((tmp_path / "out").glob("_runs/*/*/run.json"))
    summary = run(manifest, out, archive, max_failures="3")
    assert summary.by_status == {"ok": 9, "failed": 3}


@pytest.mark.parametrize("given", ["many", "-1", "101%", "0.5", "nan%", ""])
def test_what_is_no_number_of_failures(
    tmp_path: Path, archive: Any, put_table: Any, given: str
) -> None:
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": ["a"]})
    with pytest.raises(UserError, match="give a number of rows, or a percentage such as 5%"):
        run(manifest, str(tmp_path / "out"), archive, max_failures=given)
    assert not (tmp_path / "out").exists()


def test_where_no_roi_was_found_there_is_a_row_and_never_a_score(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    """The second image would score 0.5 on its whole frame, and so would the third."""
    folder = str(tmp_path)
    columns = {
        "image_uri": put_images(folder, b"p=0.25", b"p=0.5", b"p=0.5"),
        "roi": [[0, 0, 9, 9], None, None],
        "roi_proposed": [True, False, False],
        "roi_confidence": [0.7, None, None],
        "locate_status": ["ok", "none_found", "failed"],
        "locate_code": [None, None, "access_denied"],
        "study_id": ["s", "s", "s"],
    }
    manifest = put_table(objects.join(folder, "m.parquet"), columns)
    out = objects.join(folder, "out")
    options: dict[str, Any] = {"explain": None, "date": "2026-11-22"}
    assert batch.plan.plan(manifest, out, archive, **options).rows_to_score == 2
    summary = run(manifest, out, archive)
    assert summary.by_status == {"ok": 1, "failed": 1, "none_found": 1}
    rows = results.read(out).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "none_found", "failed"]
    assert [row["code"] for row in rows] == [None, None, "access_denied"]
    assert [row["malignancy_probability"] for row in rows] == [0.25, None, None]
    assert [row["roi_confidence"] for row in rows] == [0.7, None, None]
    assert [row["roi_proposed"] for row in rows] == [True, False, False]
    (unit,) = pq.read_table(next(tmp_path.glob("out/_units/*/*/study_id.parquet"))).to_pylist()
    assert [unit[it] for it in ("n_images", "n_scored", "n_failed")] == [3, 1, 1]
    assert {len(batch) for batch in archive.calls} == {1}  # the plan's own sample, and the run
    assert run(manifest, out, archive).by_status == summary.by_status
    assert batch.plan.plan(manifest, out, archive, **options).rows_to_score == 1
