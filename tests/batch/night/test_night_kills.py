"""kill -9 at any moment of a night: a re-run, or the next night, ends it; each image once."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
import yaml

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from tests.batch.dicom import ultrasound
from tests.batch.dicom.conftest import (  # noqa: F401 - fixtures
    BY_DIMSE,
    orthanc,
    running,
    sockets_of_pynetdicom,
)
from tests.batch.dicom.pacs import Orthanc

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1800), *BY_DIMSE]
IMAGES, KILLS = 6, 8


def fill(orthanc: Orthanc) -> None:  # noqa: F811
    orthanc.empty()
    for number in range(IMAGES):
        study = {"StudyInstanceUID": f"2.25.1{number // 2}", "StudyDate": "20261127"}
        uids = {"SeriesInstanceUID": f"2.25.2{number // 2}", "SOPInstanceUID": f"2.25.3{number}"}
        orthanc.put(ultrasound.data_of("examples_rgb_color.dcm", **study, **uids))


def night(folder: Path, day: str, kill_after_s: float | None = None) -> int:
    """A night in a process of its own; its exit code."""
    command = [sys.executable, "-m", "sonode", "dicom", "night", f"{folder}.yaml", "--date", day]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        return process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def test_at_many_moments(
    orthanc: Orthanc,  # noqa: F811
    archive_path: Path,
    tmp_path: Path,
) -> None:
    lines = ["instance_uid,roi_x_min,roi_y_min,roi_x_max,roi_y_max"]
    lines += [f"2.25.3{number},60,60,180,150" for number in range(IMAGES)]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    took = work = 0.0
    killed = 0
    for number in range(-1, KILLS):
        folder = tmp_path / f"night{number}"
        keys = {"pacs": orthanc.node if number % 2 else orthanc.dicomweb, "plain": True}
        keys |= {"archive": str(archive_path), "folder": str(folder)}
        keys["boxes"] = str(tmp_path / "boxes.csv")
        Path(f"{folder}.yaml").write_text(yaml.safe_dump(keys))
        fill(orthanc)
        images = set(orthanc.received())
        if number < 0:  # how long it takes
            begun = time.monotonic()
            assert night(folder, "2026-11-27") == 0
            took = time.monotonic() - begun
            stages = json.loads((folder / "nights/2026-11-27.json").read_text())["stages"]
            work = sum(it["seconds"] for it in stages.values())
            continue
        moment = took - work + work * number / KILLS
        killed += night(folder, "2026-11-27", moment) < 0
        assert night(folder, "2026-11-27" if number % 3 else "2026-11-28") == 0
        made = [pydicom.dcmread(io.BytesIO(it)) for it in orthanc.instances()]
        assert sum(it.get("Manufacturer") == "sonode" for it in made) == 3 * IMAGES
        sent = [uid for uid in orthanc.received() if uid not in images]
        assert len(sent) <= 3 * IMAGES + 1  # what was under way may come again, as the same object
        parts = (folder / "results").glob("date=*/*/*.parquet")
        assert sum(pq.read_metadata(it).num_rows for it in parts) == IMAGES
    print(f"killed {killed} of {KILLS}")
    assert killed
