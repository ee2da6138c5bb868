"""What a night may bring: stores in trouble, servers that go, full disks, images that change."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batch.run
from batch.results import schema as results
from batch.scoring.fetching import Limits
from batch.storage import objects
from sonode.console import UserError
from sonode.demo.local_s3 import LocalS3, find_weed
from tests.batch.conftest import FakeArchive, put_table
from tests.batch.faulty_proxy import FaultyProxy, cycle, started
from tests.batch.test_run import check_heatmaps, put_images, rows_of, run

ROWS = 24


@pytest.fixture
def in_s3(s3: str) -> str:
    """A folder with a manifest of images that score, `m.parquet`, and what comes of it, `alone`."""
    uris = put_images(s3, *(b"p=0.%02d" % row for row in range(ROWS)))
    manifest = put_table(f"{s3}/m.parquet", {"image_uri": uris})
    assert manifest == f"{s3}/m.parquet"
    night(s3, f"{s3}/alone")
    return s3


def night(folder: str, out: str) -> batch.run.RunSummary:
    return run(
        *(f"{folder}/m.parquet", out, FakeArchive()),
        explain="gradcam",
        shard_rows=12,
    )


def same_but_for_heatmaps(out: str, other: str) -> bool:
    found = [
        [{k: v for k, v in row.items() if "heatmap" not in k} for row in rows_of(place)]
        for place in (out, other)
    ]
    return found[0] == found[1]


@pytest.mark.live
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param((*[None] * 6, "500"), id="answers of 500"),
        pytest.param((*[None] * 12, "503", "503"), id="throttled"),
        pytest.param((*[None] * 6, "slow"), id="slow"),
        pytest.param((*[None] * 6, "reset"), id="connections that end without an answer"),
        pytest.param((*[None] * 6, "lost"), id="answers that are lost"),
        pytest.param(("500",) * 5 + (None,) * 30, id="more than is tried again"),
    ],
)
def test_a_store_in_trouble_loses_nothing(
    in_s3: str,
    server: LocalS3,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    faults: tuple[str | None, ...],
) -> None:
    proxy = FaultyProxy(server.endpoint, cycle(*faults))
    with started(proxy) as address, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ENDPOINT_URL_S3", address)
        out = f"{in_s3}/out"
        for _ in range(6):  # a run may end, and rows may fail; started again it goes on
            try:
                summary = night(in_s3, out)
            except UserError as error:
                assert "answered" in str(error) or "was not reached" in str(error)
                continue
            if summary.by_status == {"ok": ROWS, "failed": 0}:
                break
            assert set(summary.by_code) == {"storage_unavailable"}
    assert sum(count for fault, count in proxy.seen.items() if fault) > 3
    assert ".png" not in caplog.text  # a key may hold a name, and boto3 logs, too
    assert same_but_for_heatmaps(out, f"{in_s3}/alone")
    check_heatmaps(out)


def bursts(fault: str) -> Iterator[str | None]:
    """Eight faults in a row now and then; not at regular distances, which may be a run's own."""
    chance = random.Random(1)
    while True:
        yield from [None] * chance.randint(20, 60)
        yield from [fault] * 8


@pytest.mark.live
def test_images_that_come_cut_short_are_asked_for_again_or_fail_with_a_code(
    in_s3: str, server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = FaultyProxy(server.endpoint, bursts("cut"))
    with started(proxy) as address, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ENDPOINT_URL_S3", address)
        out = f"{in_s3}/out"
        codes: set[str] = set()
        for _ in range(20):
            try:
                summary = night(in_s3, out)
            except UserError:
                continue
            codes |= set(summary.by_code)
            if summary.by_status["failed"] == 0:
                break
    assert proxy.seen["cut"] > 5
    assert codes <= {"storage_unavailable"}  # never a half image that was scored or decoded
    assert [row["malignancy_probability"] for row in rows_of(out)] == [
        row / 100 for row in range(ROWS)
    ]


@pytest.mark.live
def test_a_server_that_stops_and_comes_back(tmp_path: Path, put_table: Any) -> None:
    with (
        LocalS3(tmp_path / "s3", bucket="studies") as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        uris = put_images("s3://studies", *(b"p=0.%02d" % row for row in range(ROWS)))
        manifest = put_table("s3://studies/m.parquet", {"image_uri": uris})

        class Stopping(FakeArchive):
            def score_prepared(self, prepared: Any) -> Any:
                if len(self.calls) == 3:
                    server._stop()
                return super().score_prepared(prepared)

        with pytest.raises(UserError, match="was not reached"):
            run(manifest, "s3://studies/out", Stopping())
        server._start(find_weed())
        server._wait_until_ready()
        summary = run(manifest, "s3://studies/out", FakeArchive())
        assert summary.by_status == {"ok": ROWS, "failed": 0}
        assert [row["malignancy_probability"] for row in rows_of("s3://studies/out")] == [
            row / 100 for row in range(ROWS)
        ]


@pytest.mark.live
def test_an_image_that_is_replaced_during_the_run_is_reported(
    s3: str, archive: Any, put_table: Any
) -> None:
    uris = put_images(s3, *(b"p=0.%02d" % row for row in range(ROWS)))
    etags = [objects.etag_of(uri) for uri in uris]
    manifest = put_table(f"{s3}/m.parquet", {"image_uri": uris, "etag": etags})
    replaced = threading.Event()

    class Replacing(FakeArchive):
        def score_prepared(self, prepared: Any) -> Any:
            if not replaced.is_set():
                replaced.set()
                objects.write(uris[-1], b"p=0.99")
            return super().score_prepared(prepared)

    summary = run(manifest, f"{s3}/out", Replacing())
    assert summary.by_code == {"object_changed": 1}
    last = rows_of(f"{s3}/out")[-1]
    assert (last["code"], last["stage"]) == ("object_changed", "fetch")
    assert last["malignancy_probability"] is None


FULL = """
import resource, sys
from tests.batch.conftest import FakeArchive
from tests.batch.test_run import run
from sonode.console import UserError

class Filling(FakeArchive):
    def score_prepared(self, prepared):
        if len(self.calls) == 4:  # from now on no such file can be written
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
        return super().score_prepared(prepared)

try:
    run(sys.argv[1], sys.argv[2], Filling(), explain="gradcam")
except UserError as error:
    sys.stdout.write(str(error))
    sys.exit(2)
"""


@pytest.mark.parametrize("room", [pytest.param(100, id="parts"), pytest.param(20, id="heat maps")])
def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(
    room: int, tmp_path: Path, archive: Any
) -> None:
    out = str(tmp_path / "out")
    uris = put_images(str(tmp_path), *(b"p=0.%02d" % row for row in range(ROWS)))
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    done = subprocess.run(
        [sys.executable, "-c", FULL, manifest, out, str(room)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith(f"results cannot be written to {out}: the file system answered")
    assert not [path for path in Path(out).rglob("*") if path.name.endswith(".partial")]
    before = results.read(out).num_rows if any(Path(out).rglob("*.parquet")) else 0
    assert before < ROWS
    summary = run(manifest, out, archive, explain="gradcam")
    assert summary.by_status == {"ok": ROWS, "failed": 0}
    assert summary.scored == ROWS - before
    check_heatmaps(out)


def test_poison_at_each_stage_stays_with_its_row(tmp_path: Path) -> None:
    images = [b"p=0.5"] * 20
    images[3], images[8], images[13], images[17] = b"no image", b"hang", b"poison", b"bad"
    uris = put_images(str(tmp_path), *images)
    uris[5] = str(tmp_path / "none.png")
    archive = FakeArchive()
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    try:
        run(
            *(manifest, str(tmp_path / "out"), archive),
            limits=Limits(row_seconds=0.3),
            shard_rows=20,
        )
    finally:
        archive.released.set()
    found = {n: (row["stage"], row["code"]) for n, row in enumerate(rows_of(str(tmp_path / "out")))}
    assert {n: failure for n, failure in found.items() if failure[1]} == {
        3: ("preprocess", "unsupported_image"),
        5: ("fetch", "object_missing"),
        8: ("preprocess", "preprocess_timeout"),
        13: ("inference", "inference_failed"),
        17: ("preprocess", "image_truncated"),
    }
