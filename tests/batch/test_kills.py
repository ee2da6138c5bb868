"""kill -9 at any moment and at each boundary of a stage: a rerun gives the unbroken result."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from typing import Any

import pytest

from batch.storage import objects
from tests.batch import killed
from tests.batch.conftest import FakeArchive, put_table
from tests.batch.test_run import PLACE, check_heatmaps, put_images, rows_of, run

ROWS = 40
KILLS = int(os.environ.get("SONODE_TEST_KILLS", "4"))  # `make kills` sets it to 50


@pytest.fixture
def manifest(folder: str) -> str:
    """Forty rows, in shards of three; row 7 has no image, row 11 is no image."""
    images = [b"p=0.%02d" % row for row in range(ROWS)]
    images[11] = b"bad"
    uris = put_images(folder, *images)
    uris[7] = objects.join(folder, "none.png")
    columns = {"study_id": [f"s{row}" for row in range(ROWS)], "image_uri": uris}
    return put_table(objects.join(folder, "m.parquet"), columns)


def but_for_heatmaps(out: str) -> list[dict[str, Any]]:
    """The results without the URIs that hold `out` itself."""
    return [{k: v for k, v in row.items() if "heatmap" not in k} for row in rows_of(out)]


def kill(manifest: str, out: str, seed: int) -> bool:
    """Start a run, kill -9 it after a random while; whether it was still going."""
    process = killed.started(killed.slowly, manifest, out)
    while not objects.exists(objects.join(out, f"_runs/{PLACE}/started.json")):
        assert process.is_alive()
        time.sleep(0.005)
    time.sleep(random.Random(seed).uniform(0, 0.3))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.timeout(60 + 30 * KILLS)
def test_at_random_moments(folder: str, manifest: str) -> None:
    alone = objects.join(folder, "alone")
    run(manifest, alone, FakeArchive(), explain="gradcam")
    expected = but_for_heatmaps(alone)
    broken = 0
    for seed in range(KILLS):
        out = objects.join(folder, f"out{seed}")
        broken += kill(manifest, out, seed)
        # Whatever is there is whole, and no row stands twice.
        if any(uri.endswith(".parquet") for uri in objects.list_files(out, deep=True)):
            ids = [row["study_id"] for row in rows_of(out)]
            assert len(ids) == len(set(ids))
            check_heatmaps(out)
        summary = run(manifest, out, FakeArchive(), explain="gradcam")
        assert summary.rows == ROWS
        assert but_for_heatmaps(out) == expected
        check_heatmaps(out)
    assert broken


@pytest.mark.timeout(120 + 30 * KILLS)
def test_before_and_after_each_stage_of_each_row(folder: str) -> None:
    """Fetch, decode, network, heat maps, parts, claims, run.json and report, until a run lives."""
    first, last = put_images(folder, b"p=0.1", b"p=0.3")
    for boundary in itertools.count(0, 1 if KILLS >= 50 else 31):
        late = objects.join(folder, f"images/late-{boundary}.png")
        columns = {"image_uri": [first, late, last]}
        manifest = put_table(objects.join(folder, f"m{boundary}.parquet"), columns)
        out = objects.join(folder, f"out{boundary}")
        process = killed.started(killed.until, boundary, manifest, out, late)
        process.join()
        objects.write(late, b"p=0.2")
        summary = run(manifest, out, FakeArchive(), explain="gradcam", shard_rows=2)
        assert summary.by_status == {"ok": 3, "failed": 0}
        assert [row["malignancy_probability"] for row in rows_of(out)] == [0.1, 0.2, 0.3]
        check_heatmaps(out)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert boundary > 80
