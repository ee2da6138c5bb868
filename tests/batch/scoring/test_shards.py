"""Parts that are written before their shard's end: what a run that ends early keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import batch.plan
import batch.run
from batch import layout
from batch.executors.ray_worker import Worker, portable
from batch.manifest.read import encoded
from batch.scoring import parts, shards
from batch.scoring.fetching import Limits
from batch.scoring.job import Job
from batch.storage import objects
from sonode.console import UserError
from tests.batch.conftest import FakeArchive, put_table
from tests.batch.test_run import put_images, rows_of, run

ROWS = 12


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """One shard: eight rows that score, three that are no images, and one that never comes back."""
    uris = put_images(str(tmp_path), *[b"p=0.25"] * 8, *[b"no image"] * 3, b"hang")
    return str(put_table(str(tmp_path / "m.parquet"), {"image_uri": uris}))


def interrupted(items: Iterator[Any], **_: Any) -> Iterator[Any]:
    """Ctrl-C once all is known that will be."""
    for number, item in enumerate(items, 1):
        yield item
        if number == ROWS - 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["--max-failures", "Ctrl-C"])
def test_what_was_found_is_written_and_the_rest_is_done_by_the_next_run(
    tmp_path: Path, manifest: str, how: str
) -> None:
    out, archive = str(tmp_path / "out"), FakeArchive()
    options: dict[str, Any] = {"explain": None, "batch_size": 2, "shard_rows": 50}
    try:
        if how == "Ctrl-C":
            with pytest.raises(KeyboardInterrupt):
                batch.run.score(manifest, out, archive, progress=interrupted, **options)
        else:
            with pytest.raises(batch.run.Stopped, match="the results so far are written"):
                run(manifest, out, archive, shard_rows=50, max_failures="2")
    finally:
        archive.released.set()
    assert [(row["malignancy_probability"], row["code"]) for row in rows_of(out)] == [
        *[(0.25, None)] * 8,
        *[(None, "unsupported_image")] * 3,
        (None, "not_reached"),
    ]
    objects.write(str(tmp_path / "images" / f"{ROWS - 1}.png"), b"p=0.75")
    again = FakeArchive()
    planned = batch.plan.plan(manifest, out, again, explain=None, retry_failed=False)
    assert (planned.shards_done, planned.rows_ok, planned.rows_failed) == (0, 8, 3)
    assert planned.rows_to_score == 1
    again.calls.clear()
    summary = run(manifest, out, again, shard_rows=50, date=None, retry_failed=False)
    assert [[row["image"] for row in call] for call in again.calls] == [[b"p=0.75"]]
    assert summary.by_status == {"ok": 9, "failed": 3}


def test_a_run_that_cannot_go_on_writes_what_it_has(tmp_path: Path, put_table: Any) -> None:
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2", b"poison", b"p=0.4")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    archive = FakeArchive()
    archive.lost = True
    with pytest.raises(UserError, match="the device no longer responds"):
        run(manifest, str(tmp_path / "out"), archive, shard_rows=50)
    assert [row["code"] for row in rows_of(str(tmp_path / "out"))] == [
        *(None, None, "not_reached", "not_reached"),
    ]


def test_a_long_shard_is_written_again_and_again(
    tmp_path: Path, put_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill may cost is bounded in time: here with a bound of no time at all."""
    uris = put_images(str(tmp_path), *(b"p=0.%d" % row for row in range(6)))
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = str(tmp_path / "out")
    commit = parts.commit
    seen: list[list[float | None]] = []

    def committing(*given: Any) -> Any:
        found = commit(*given)
        seen.append([row["malignancy_probability"] for row in rows_of(out)])
        return found

    monkeypatch.setattr(parts, "commit", committing)
    limits = Limits(unwritten_seconds=0)
    assert run(manifest, out, FakeArchive(), shard_rows=50, limits=limits).scored == 6
    p = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert seen == [*([*p[:n], *[None] * (6 - n)] for n in range(1, 7)), p]


def test_rows_do_not_wait_for_one_that_takes_long(
    tmp_path: Path, put_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written while it is at it; here it ends once they are."""
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2", b"hang")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    archive, out, commit = FakeArchive(), str(tmp_path / "out"), parts.commit
    seen: list[list[str | None]] = []

    def committing(*given: Any) -> Any:
        found = commit(*given)
        seen.append([row["code"] for row in rows_of(out)])
        if seen[-1] == [None, None, "not_reached"]:
            archive.released.set()
        return found

    monkeypatch.setattr(parts, "commit", committing)
    limits = Limits(unwritten_seconds=0.05)
    run(manifest, out, archive, batch_size=1, shard_rows=50, limits=limits)
    assert seen[-2:] == [[None, None, "not_reached"], [None, None, "image_truncated"]]


def test_a_part_under_way_is_improved_by_two_runs(tmp_path: Path, put_table: Any) -> None:
    """Of a second run that has written a score meanwhile, the first one keeps it."""
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2", b"p=0.3")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = str(tmp_path / "out")

    class Overtaken(FakeArchive):
        def score_prepared(self, prepared: Any) -> Any:
            if len(self.calls) == 1:  # its first row is written by now, or will be
                run(manifest, out, FakeArchive(), shard_rows=50)
                self.calls.append(prepared)
                raise RuntimeError
            return super().score_prepared(prepared)

    limits = Limits(unwritten_seconds=0)
    summary = run(manifest, out, Overtaken(), batch_size=1, shard_rows=50, limits=limits)
    assert summary.by_status == {"ok": 3, "failed": 0}
    assert [row["malignancy_probability"] for row in rows_of(out)] == [0.1, 0.2, 0.3]


def test_a_worker_that_is_closed_writes_what_it_has(tmp_path: Path, manifest: str) -> None:
    """As on Ray, where a run that is over closes its workers; here without Ray."""
    archive = FakeArchive()
    worker = Worker(lambda *_: nullcontext(archive), "", {})
    worker.load()
    known = threading.Semaphore(0)
    out = str(tmp_path / "out")
    job = Job(archive=archive, out=out, date="2026-11-22", folder="/", explain=None, batch_size=4)
    objects.write(objects.join(out, layout.started(job.partition)), b"{}")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        found = shards._Part.found

        def finding(*given: Any) -> None:
            found(*given)
            known.release()

        patch.setattr(shards._Part, "found", finding)
        rows = encoded(pq.read_table(manifest))
        scoring = pool.submit(worker.score, portable(job), Limits(), 0, rows)
        for _ in range(ROWS - 1):
            assert known.acquire(timeout=20)
        worker.close()
        with pytest.raises(CancelledError):
            scoring.result(20)
    archive.released.set()
    codes = [row["code"] for row in rows_of(out)]
    assert codes == [*[None] * 8, *["unsupported_image"] * 3, "not_reached"]
