"""`sonode score --executor ray` as a user meets it: a real archive, and a cluster of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.storage import objects
from tests.batch.clusters import ROOT
from tests.batch.test_run import rows_of
from tests.processes import assert_no_process_about
from train.cohorts.cohort import Cohort

ROWS = 150
DATE = "2026-11-22"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A home and a place for what Ray writes; sockets have short paths."""
    made = Path("/tmp") / f"sonode-cli-{os.getpid()}"
    made.mkdir()
    yield made
    shutil.rmtree(made)


def score(folder: Path, manifest: Path, archive: Path, out: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "sonode", "score", str(manifest), str(out)]
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
    environment |= {"HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_worker_niceness": "0"}
    return subprocess.Popen(
        [*command, f"--archive={archive}", f"--date={DATE}", "--engine=eager", *words],
        cwd=ROOT,
        # Threads change last digits: as many here as a worker of one CPU has.
        env=environment | {"SONODE_HANDLER_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.live
def test_a_cluster_of_its_own_interrupted_and_run_again(
    folder: Path, tmp_path: Path, archive_path: Path, phantom: Cohort
) -> None:
    images = [str(phantom.folder / image) for image in phantom.table["image"]]
    uris = [images[row % len(images)] for row in range(ROWS)]
    rois = [[row // len(images), 10, 150, 150] for row in range(ROWS)]
    manifest = tmp_path / "m.parquet"
    pq.write_table(pa.table({"image_uri": uris, "roi": rois}), manifest)
    local, out = tmp_path / "local", tmp_path / "out"
    on_ray = ("--executor=ray", "--workers=1", "--worker-cpus=1", "--json")  # one shard

    with score(folder, manifest, archive_path, local) as process:
        assert process.wait() == 0

    with score(folder, manifest, archive_path, out, *on_ray) as process:
        while not list(out.glob("_runs/date=*/model=*/started.json")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()
    assert (process.returncode, said[0]) == (130, "")
    assert said[1].splitlines()[-1] == "interrupted"
    assert "Traceback" not in said[1]
    assert_no_process_about(folder)

    with score(folder, manifest, archive_path, out, *on_ray) as process:
        said = process.communicate()
    assert process.returncode == 0, said[1]
    (line,) = said[0].splitlines()
    assert json.loads(line)["by_status"] == {"ok": ROWS, "failed": 0}
    assert rows_of(str(out)) == rows_of(str(local))
    assert len(rows_of(str(out))) == ROWS
    names = [
        [uri.removeprefix(str(place)) for uri in objects.list_files(str(place), deep=True)]
        for place in (out, local)
    ]
    assert names[0] == names[1]

    assert_no_process_about(folder)
    assert not (folder / ".ray").exists()  # where Ray would keep a token
    assert list(folder.rglob("usage_stats.json")) == []


@pytest.mark.live
def test_an_archive_that_is_none(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with score(folder, tmp_path / "m", tmp_path / "no.mar", out, "--executor=ray") as process:
        said = process.communicate()
    assert process.returncode == 2
    assert said[1].splitlines()[-1].startswith("error: ARCHIVE ")
    assert said[1].splitlines()[-1].endswith("no.mar: no such file; pack one with `sonode pack`")
    assert "Traceback" not in said[1]
    assert_no_process_about(folder)
