"""kill -9 at any moment of a push: a rerun sends the rest, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from batch.dicom.pushing import push as pushing
from tests.batch.dicom import ultrasound
from tests.batch.dicom.conftest import BY_DIMSE, NAMES, Objects, objects_of, put_record
from tests.batch.dicom.pacs import Orthanc

pytestmark = [pytest.mark.live, *BY_DIMSE]
ROWS = 4
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["batch.dicom.pushing.push", __name__])


@pytest.fixture(scope="module")
def many() -> list[Objects]:
    """The objects of four boxes in one image."""
    return [objects_of(NAMES[0], (10, 20, 50, 40 + row)) for row in range(ROWS)]


def push(environment: dict[str, str], out: str, to: str, started: object = None) -> None:
    os.environ.update(environment)
    if started is not None:
        started.set()  # type: ignore[attr-defined]
    done = pushing.push_to(
        out,
        to,
        title="SONODE",
        plain=True,
        unknown_images=False,
        progress=lambda entries, **more: entries,
    )
    assert done.by_status["accepted"] + done.by_status["present"] == 3 * ROWS
    assert done.stopped is None


def kill(out: str, to: str, after_s: float) -> bool:
    """Start a push, kill -9 it `after_s` seconds later; whether it was still going."""
    started = _context.Event()
    process = _context.Process(target=push, args=(dict(os.environ), out, to, started))
    process.start()
    assert started.wait(60)
    time.sleep(after_s)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_at_random_moments(
    kills: int, many: list[Objects], orthanc: Orthanc, tmp_path: Path
) -> None:
    orthanc.put(ultrasound.data_of(NAMES[0]))
    image = set(orthanc.received())
    took = 0.0
    broken = twice = 0
    for seed in range(-2, kills):
        to = orthanc.node if seed % 2 else orthanc.dicomweb
        out = tmp_path / f"out{seed}"
        for index, files in enumerate(many):
            put_record(out, index, [files])  # each with a ledger of its own
        orthanc.empty()
        orthanc.put(ultrasound.data_of(NAMES[0]))
        if seed < 0:  # how long it takes, each way
            begun = time.monotonic()
            push({}, str(out), to)
            took = max(took, time.monotonic() - begun)
            continue
        broken += kill(str(out), to, random.Random(seed).uniform(0, took))
        push({}, str(out), to)
        received = [uid for uid in orthanc.received() if uid not in image]
        # What was under way when it was killed may come again: one object, of the same UID.
        assert len(set(received)) == 3 * ROWS
        assert len(received) <= 3 * ROWS + 1
        twice += len(received) - 3 * ROWS
        assert len(orthanc.instances()) == 3 * ROWS + 1
    print(f"killed {broken} of {kills}; sent twice: {twice}")
    assert broken
