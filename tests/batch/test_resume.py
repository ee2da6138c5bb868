"""Runs that end anywhere, come again, or come two at once: every row stands once."""

from __future__ import annotations

import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batch.plan
import batch.run
from batch.executors import local as local_executor
from batch.results import schema as results
from batch.scoring import parts
from batch.storage import objects
from sonode.console import UserError
from tests.batch.conftest import FakeArchive, put_table
from tests.batch.test_run import PLACE, put_images, rows_of, run

ROWS = 40


@pytest.fixture
def manifest(folder: str) -> str:
    """Forty rows, in shards of three; rows 7 and 20 have no image yet, row 11 is no image."""
    images = [b"p=0.%02d" % row for row in range(ROWS)]
    images[11] = b"bad"
    uris = put_images(folder, *images)
    for row in (7, 20):
        uris[row] = objects.join(folder, f"images/late-{row}.png")
    columns = {"study_id": [f"s{row}" for row in range(ROWS)], "image_uri": uris}
    return put_table(objects.join(folder, "m.parquet"), columns)


def plan(manifest: str, out: str, archive: Any, **options: Any) -> batch.plan.Plan:
    return batch.plan.plan(manifest, out, archive, explain=None, **options)


def arrive(folder: str, row: int) -> None:
    objects.write(objects.join(folder, f"images/late-{row}.png"), b"p=0.%02d" % row)


def scored(archive: FakeArchive) -> int:
    return sum(len(call) for call in archive.calls)


def test_a_rerun_does_only_what_failed(folder: str, manifest: str, archive: Any) -> None:
    out = objects.join(folder, "out")
    first = run(manifest, out, archive)
    assert first.by_code == {"image_truncated": 1, "object_missing": 2}
    before = {uri: objects.etag_of(uri) for uri in objects.list_files(out, deep=True)}
    archive.calls.clear()
    arrive(folder, 7)
    second = run(manifest, out, archive)
    assert scored(archive) == 2  # the one that arrived, and the one that is no image
    assert (second.scored, second.rows) == (3, ROWS)
    assert second.by_code == {"image_truncated": 1, "object_missing": 1}
    after = {uri: objects.etag_of(uri) for uri in objects.list_files(out, deep=True)}
    assert [uri[-42] for uri in before if before[uri] != after[uri]] == ["2"]  # of rows 6 to 8
    assert set(before) == set(after)
    assert [row["study_id"] for row in rows_of(out)] == [f"s{row}" for row in range(ROWS)]
    assert rows_of(out)[7]["malignancy_probability"] == 0.07

    archive.calls.clear()
    arrive(folder, 20)
    kept = run(manifest, out, archive, retry_failed=False)
    assert (scored(archive), kept.scored, kept.by_code) == (0, 0, second.by_code)


def test_a_score_is_never_given_up_for_a_failure(
    folder: str, manifest: str, archive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slower run that could not fetch an image comes after one that could."""
    out = objects.join(folder, "out")
    commit = parts.commit
    other = FakeArchive()

    def late(*given: Any) -> Any:
        monkeypatch.setattr(parts, "commit", commit)
        for row in (7, 20):
            arrive(folder, row)
        run(manifest, out, other)
        return commit(*given)

    monkeypatch.setattr(parts, "commit", late)
    monkeypatch.setattr(local_executor, "AT_ONCE", 1)
    # The first shard waits; the third is scored by the other run before this one gets there.
    summary = run(manifest, out, archive)
    assert summary.by_code == {"image_truncated": 1}
    assert scored(archive) == 3 + 1  # its own first shard, and the image that fails each time


def test_what_another_run_found_meanwhile_is_kept(folder: str, put_table: Any) -> None:
    """Two runs improve one part at once: both improvements stand."""
    out = objects.join(folder, "out")
    uris = [objects.join(folder, f"images/late-{row}.png") for row in range(3)]
    manifest = put_table(objects.join(folder, "m.parquet"), {"image_uri": uris})
    run(manifest, out, FakeArchive())
    commit = parts.commit
    turn = threading.Barrier(2)

    def together(*given: Any) -> Any:
        turn.wait(20)  # both have read the same part and scored one row of it
        return commit(*given)

    class Half(FakeArchive):
        def __init__(self, row: int) -> None:
            super().__init__()
            self.row = row

        def score_prepared(self, rows: Any) -> Any:
            return [
                self._score(row if row["image"] == b"p=0.0%d" % self.row else {"image": b"bad"})
                for row in rows
            ]

    for row in (0, 1):
        arrive(folder, row)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(parts, "commit", together)
        done = list(pool.map(lambda row: run(manifest, out, Half(row)), (0, 1)))
    assert [row["malignancy_probability"] for row in rows_of(out)] == [0.0, 0.01, None]
    record = objects.read(objects.join(out, f"_runs/{PLACE}/run.json")).data
    assert json.loads(record)["by_status"] == {"ok": 2, "failed": 1}
    assert {"ok": 2, "failed": 1} in [summary.by_status for summary in done]


def test_two_runs_at_once_give_one_result(folder: str, manifest: str) -> None:
    out, alone = objects.join(folder, "out"), objects.join(folder, "alone")
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: run(manifest, out, FakeArchive()), range(3)))
    run(manifest, alone, FakeArchive())
    assert rows_of(out) == rows_of(alone)
    assert [summary.rows for summary in done] == [ROWS] * 3
    names = [uri.removeprefix(out) for uri in objects.list_files(out, deep=True)]
    assert names == [uri.removeprefix(alone) for uri in objects.list_files(alone, deep=True)]


def test_plain_readers_take_the_folder_as_it_is(tmp_path: Path, archive: Any) -> None:
    out = str(tmp_path / "out")
    uris = put_images(str(tmp_path), *(b"p=0.%d" % row for row in range(7)))
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    for date in ("2026-11-22", "2026-11-23"):
        run(manifest, out, archive, explain="gradcam", date=date)
        manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris[::-1]})
    frame = pd.read_parquet(out)
    assert len(frame) == 14
    assert set(frame["date"].astype(str)) == {"2026-11-22", "2026-11-23"}
    assert set(frame["model"]) == {"fake-1.0"}
    assert frame["malignancy_probability"].sum() == pytest.approx(2 * 2.1)
    found = duckdb.sql(
        f"select date, model, count(*), count(distinct image_uri) "
        f"from read_parquet('{out}/**/*.parquet', hive_partitioning=true) group by all order by 1"
    ).fetchall()
    assert [(str(date), *rest) for date, *rest in found] == [
        ("2026-11-22", "fake-1.0", 7, 7),
        ("2026-11-23", "fake-1.0", 7, 7),
    ]


def test_a_column_that_one_night_leaves_empty_does_not_break_the_others(
    tmp_path: Path, archive: Any
) -> None:
    out = str(tmp_path / "out")
    for date, note in (("2026-11-22", pa.nulls(1)), ("2026-11-23", ["seen"])):
        columns = {"image_uri": put_images(str(tmp_path), b"p=0.5"), "note": note}
        run(put_table(str(tmp_path / "m.parquet"), columns), out, archive, date=date)
    assert [note for note in pd.read_parquet(out)["note"] if note == "seen"] == ["seen"]
    found = duckdb.sql(f"select note from read_parquet('{out}/**/*.parquet') where note = 'seen'")
    assert found.fetchall() == [("seen",)]


def test_a_manifest_keeps_its_date_and_a_place_its_manifest(
    folder: str, manifest: str, archive: Any, put_table: Any
) -> None:
    out = objects.join(folder, "out")
    run(manifest, out, archive)
    assert run(manifest, out, archive, date=None).date == "2026-11-22"  # whatever day it is
    with pytest.raises(UserError, match="has this manifest under 2026-11-22; omit --date"):
        run(manifest, out, archive, date="2026-11-23")
    with pytest.raises(UserError, match=r"another run \(explain differs\)"):
        run(manifest, out, archive, explain="gradcam")
    other = put_table(objects.join(folder, "n.parquet"), {"image_uri": ["x.png"]})
    with pytest.raises(UserError, match=r"another run \(manifest differs\)"):
        run(other, out, archive)
    assert run(other, out, archive, date="2026-11-23").rows == 1
    archive.sha256 = "cd" * 32
    with pytest.raises(UserError, match=r"another run \(model differs\)"):
        run(manifest, out, archive)
    for date in ("yesterday", "2026-13-01", "2026-1-1"):
        with pytest.raises(UserError, match=": not a date; give YYYY-MM-DD"):
            run(other, objects.join(folder, "new"), archive, date=date)


def test_the_remedy_for_a_place_that_is_taken_is_one(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    """Each refusal names something that is not refused in its turn."""
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = str(tmp_path / "out")
    run(manifest, out, archive)
    with pytest.raises(UserError, match=r"explain differs\); give --explain as that run did, or"):
        run(manifest, out, archive, date=None, explain="gradcam")
    assert run(manifest, out, archive, date=None).rows == 2
    with pytest.raises(UserError, match=r"--shard-rows 5: .* have shards of 3 rows; omit --s"):
        run(manifest, out, archive, shard_rows=5)
    assert run(manifest, out, archive, shard_rows=None).rows == 2
    other = put_table(str(tmp_path / "n.parquet"), {"image_uri": uris[:1]})
    with pytest.raises(UserError, match=r"manifest differs\); give another --date \(--since"):
        run(other, out, archive, explain="gradcam")  # and another method: the date mends both
    assert run(other, out, archive, date="2026-11-23", explain="gradcam").rows == 1
    archive.sha256 = "cd" * 32
    with pytest.raises(UserError, match=r"model differs\); pack the archive with another version"):
        run(manifest, out, archive)
    archive.version = "1.1"
    assert run(manifest, out, archive).rows == 2


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"date": ', b"{}"])
def test_a_record_that_is_none_ends_a_run_before_it_has_begun(
    tmp_path: Path, archive: Any, put_table: Any, damage: bytes
) -> None:
    uris = put_images(str(tmp_path), b"p=0.1")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = tmp_path / "out"
    run(manifest, str(out), archive)
    for record in (out / f"_runs/{PLACE}/started.json", *(out / "_runs/manifests").iterdir()):
        sound = record.read_bytes()
        record.write_bytes(damage)
        with pytest.raises(UserError, match=f"{record}: not a file that a run wrote"):
            run(manifest, str(out), archive)
        record.write_bytes(sound)
    assert run(manifest, str(out), archive).rows == 1


@pytest.mark.parametrize(
    "damage", [b"", b"[1]", b'{"date"', b'{"date": "2026-11-22", "scores": {"malignancy": [1]}}']
)
def test_an_earlier_record_that_is_none_is_not_compared_with(
    tmp_path: Path, archive: Any, put_table: Any, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2", b"p=0.3")
    out = tmp_path / "out"
    found = []
    for day, uri in enumerate(uris, 22):
        manifest = put_table(str(tmp_path / f"{day}.parquet"), {"image_uri": [uri]})
        found.append(run(manifest, str(out), archive, date=f"2026-11-{day}"))
        if day == 22:
            record = out / f"_runs/{PLACE}/run.json"
            assert json.loads(record.read_bytes())["format"] == 1
            record.write_bytes(damage)
    assert [list(summary.drift) for summary in found] == [
        ["training"],
        ["training"],
        ["training", "run of 2026-11-23"],
    ]
    (warning,) = [one.getMessage() for one in caplog.records if one.name == "batch.report.summary"]
    assert warning == (
        f"{record}: not a file that a run wrote; scores are not compared with that run's"
    )


def test_a_part_that_is_none_is_refused_and_not_overwritten(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    out = str(tmp_path / "out")
    manifest = put_table(
        str(tmp_path / "m.parquet"), {"image_uri": put_images(str(tmp_path), b"p=0.5")}
    )
    run(manifest, out, archive)
    (part,) = objects.list_files(out, deep=True)
    Path(part).write_bytes(b"PAR1, not")
    with pytest.raises(UserError, match="not the results of this shard; remove it"):
        run(manifest, out, archive)
    pq.write_table(pa.table({"status": ["ok"]}), part)
    with pytest.raises(UserError, match="not the results of this shard; remove it"):
        run(manifest, out, archive)


def test_a_bit_that_was_flipped_in_a_part_is_seen(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    """Without checksums p would be another from then on, for each reader and for `--since`."""
    out = str(tmp_path / "out")
    uris = put_images(str(tmp_path), *(b"p=0.2%d" % row for row in range(3)))
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    run(manifest, out, archive)
    (part,) = objects.list_files(out, deep=True)
    sound = Path(part).read_bytes()
    place = sound.index(struct.pack("<d", 0.21))
    Path(part).write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
    with pytest.raises(OSError, match=r"(?i)crc"):
        results.read(out)
    with pytest.raises(UserError, match="not the results of this shard; remove it"):
        run(manifest, out, archive)
    with pytest.raises(UserError, match="not a file that a run wrote"):
        run(manifest, str(tmp_path / "new"), archive, since=out)
    Path(part).write_bytes(sound)
    assert run(manifest, out, archive).by_status == {"ok": 3, "failed": 0}


def test_earlier_results_spare_what_has_not_changed(
    folder: str, archive: Any, put_table: Any
) -> None:
    uris = put_images(folder, b"p=0.1", b"p=0.2", b"p=0.3", b"bad", b"p=0.5")
    columns = {"image_uri": uris, "roi": [[0, 0, 9, 9], None, None, None, None]}
    old = objects.join(folder, "old")
    run(put_table(objects.join(folder, "m.parquet"), columns), old, archive)

    objects.write(uris[1], b"p=0.9")  # another image under the name
    columns["roi"][2] = [0, 0, 8, 8]  # type: ignore[index]
    columns = {name: [*reversed(values)] for name, values in columns.items()}
    columns["image_uri"].append(put_images(objects.join(folder, "new"), b"p=0.6")[0])
    columns["roi"].append(None)
    columns["image_uri"][0] = "images/4.png"  # the same object, written otherwise
    manifest = put_table(objects.join(folder, "n.parquet"), columns)
    archive.calls.clear()
    out = objects.join(folder, "out")
    summary = run(manifest, out, archive, since=old, date="2026-11-23")
    assert sorted(row["image"] for call in archive.calls for row in call) == [
        *(b"bad", b"p=0.3", b"p=0.6", b"p=0.9"),
    ]
    assert (summary.carried, summary.scored) == (2, 4)
    new, before = rows_of(out), rows_of(old)
    assert [row["malignancy_probability"] for row in new] == [0.5, None, 0.3, 0.9, 0.1, 0.6]
    assert {**new[4], "image_uri": None} == {**before[0], "image_uri": None}

    # Another parameter or another archive: nothing is taken over.
    archive.calls.clear()
    run(manifest, objects.join(folder, "b"), archive, since=old, explain="gradcam")
    archive.sha256 = "cd" * 32
    run(manifest, objects.join(folder, "c"), archive, since=old)
    assert scored(archive) == 12
    for step in (run, plan):
        with pytest.raises(UserError, match=r"--since .*nowhere: has no results"):
            step(manifest, out, archive, since=objects.join(folder, "nowhere"), date="2026-11-23")


def test_every_night_may_take_over_from_all_nights_before(
    folder: str, archive: Any, put_table: Any
) -> None:
    uris = put_images(folder, b"p=0.1", b"p=0.2", b"p=0.3")
    out = objects.join(folder, "out")
    first = put_table(objects.join(folder, "m.parquet"), {"image_uri": uris[:2]})
    second = put_table(objects.join(folder, "n.parquet"), {"image_uri": uris})
    assert run(first, out, archive, since=f"{out}/", date="2026-11-22").scored == 2
    planned = plan(second, out, archive, since=out, date="2026-11-23")
    assert (planned.rows_to_score, planned.rows_known) == (3, 2)
    summary = run(second, out, archive, since=out, date="2026-11-23")
    assert (summary.carried, summary.scored) == (2, 1)
    # Of an image's versions, the one that it is now, however many nights ago that was.
    third = put_table(objects.join(folder, "o.parquet"), {"image_uri": uris[::-1]})
    objects.write(uris[0], b"p=0.9")
    assert run(third, out, archive, since=out, date="2026-11-24").scored == 1
    fourth = put_table(objects.join(folder, "p.parquet"), {"image_uri": uris[:1]})
    objects.write(uris[0], b"p=0.1")
    assert run(fourth, objects.join(folder, "last"), archive, since=out).carried == 1
    (row,) = rows_of(objects.join(folder, "last"))
    assert row["malignancy_probability"] == 0.1


def test_a_plan_refuses_what_a_run_would(tmp_path: Path, archive: Any, put_table: Any) -> None:
    uris = put_images(str(tmp_path), b"p=0.1")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    with pytest.raises(UserError, match="--max-failures many"):
        plan(manifest, str(tmp_path / "out"), archive, max_failures="many")


def test_a_place_that_a_run_left_for_another_date_is_free(
    tmp_path: Path, archive: Any, put_table: Any
) -> None:
    """Of two runs of a manifest around midnight, the later has begun a place and is refused."""
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2")
    first = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris[:1]})
    second = put_table(str(tmp_path / "n.parquet"), {"image_uri": uris[1:]})
    out = str(tmp_path / "out")
    run(first, out, archive, date="2026-11-22")
    (begun,) = [uri for uri in objects.list_files(f"{out}/_runs", deep=True) if "started" in uri]
    left = begun.replace("2026-11-22", "2026-11-23")
    objects.write(left, objects.read(begun).data)
    assert run(second, out, archive, date="2026-11-23").rows == 1
    with pytest.raises(UserError, match="hold the results of another run"):
        run(put_table(str(tmp_path / "o.parquet"), {"image_uri": uris}), out, archive)


def test_an_etag_of_the_manifest_that_is_not_the_objects_is_a_failure_all_the_same(
    folder: str, archive: Any, put_table: Any
) -> None:
    uris = put_images(folder, b"p=0.1")
    old = objects.join(folder, "old")
    run(put_table(objects.join(folder, "m.parquet"), {"image_uri": uris}), old, archive)
    manifest = put_table(objects.join(folder, "n.parquet"), {"image_uri": uris, "etag": ["other"]})
    summary = run(manifest, objects.join(folder, "out"), archive, since=old)
    assert summary.by_code == {"object_changed": 1}
    weak = f'W/"{objects.etag_of(uris[0])}"'  # as a proxy that compresses writes it
    manifest = put_table(objects.join(folder, "o.parquet"), {"image_uri": uris, "etag": [weak]})
    assert run(manifest, objects.join(folder, "again"), archive, since=old).carried == 1
