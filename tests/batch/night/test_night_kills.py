"""kill -9 at any moment of a night: a re-run, or the next night, ends it; each image once.

One image has a kind that no object can refer to, so each night has something to tell.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import time
from datetime import datetime
from multiprocessing.synchronize import Event
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
import typer
import yaml

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from batch.night import command
from batch.night.register import Register
from tests.batch.dicom.conftest import BY_DIMSE
from tests.batch.dicom.pacs import Orthanc
from tests.batch.night.night_of_boxes import fill

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(7200), *BY_DIMSE]
IMAGES = 6
KILLS = int(os.environ.get("SONODE_TEST_KILLS") or 8)  # `make kills` asks for more
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "batch.night.night", __name__])


def of_command(environment: dict[str, str], file: str, day: str, started: Event) -> None:
    """The command, in a process that has imported all it needs."""
    os.environ.update(environment)
    started.set()
    try:
        command.night(Path(file), day=datetime.fromisoformat(day), folder=None, as_json=False)
    except typer.Exit as end:
        sys.exit(end.exit_code)


def night(folder: Path, day: str, kill_after_s: float | None = None) -> int:
    """A night in a process of its own; its exit code."""
    started = _context.Event()
    asked = (dict(os.environ), f"{folder}.yaml", day, started)
    process = _context.Process(target=of_command, args=asked)
    process.start()
    assert started.wait(600)
    process.join(kill_after_s)
    process.kill()  # nothing, where it has ended
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def test_at_many_moments(
    orthanc: Orthanc,
    archive_path: Path,
    tmp_path: Path,
) -> None:
    took = None
    killed = 0
    for number in range(10 * KILLS):
        folder = tmp_path / f"night{number}"
        keys = {"pacs": orthanc.node if number % 2 else orthanc.dicomweb, "plain": True}
        keys |= {"archive": str(archive_path), "folder": str(folder)}
        keys["boxes"] = fill(orthanc, tmp_path, IMAGES, unfit=1)
        Path(f"{folder}.yaml").write_text(yaml.safe_dump(keys))
        images = set(orthanc.received())
        begun = time.monotonic()
        moment = took and took * (number % KILLS) / KILLS
        first = night(folder, "2026-11-27", moment)
        assert first in (1, -signal.SIGKILL)
        if first == 1:  # the first one, or it has ended before its moment
            took = time.monotonic() - begun
        killed += first != 1
        told = first == 1 or (folder / "nights/2026-11-27.json").exists()
        day = "2026-11-27" if number % 3 else "2026-11-28"
        following = night(folder, day)  # of the same night again, or of one that ends it
        assert following == 1 or (following == 0 and told and day == "2026-11-28")
        assert night(folder, "2026-11-29") == 0
        register = Register(str(folder))
        assert {it: its.faults for it, its in register.nights.items() if its.faults} == {}
        made = [pydicom.dcmread(io.BytesIO(it)) for it in orthanc.instances()]
        assert sum(it.get("Manufacturer") == "sonode" for it in made) == 3 * IMAGES
        sent = [uid for uid in orthanc.received() if uid not in images]
        assert len(sent) <= 3 * IMAGES + 1  # what was under way may come again, as the same object
        parts = (folder / "results").glob("date=*/*/*.parquet")
        assert sum(pq.read_metadata(it).num_rows for it in parts) == IMAGES + 1
        if killed == KILLS:
            break
    assert killed == KILLS
