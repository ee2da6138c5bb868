"""A night with a PACS that is slow, fails, loses answers or restarts: nothing is lost."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from batch.dicom.origins import dicomweb
from batch.dicom.pushing import stow
from batch.night import night
from batch.night.settings import Settings
from sonode import console
from tests.batch import faulty_proxy
from tests.batch.dicom.conftest import BY_DIMSE
from tests.batch.dicom.pacs import Orthanc
from tests.batch.night.night_of_boxes import fill

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(3600), *BY_DIMSE]
IMAGES = 4
DAY = date(2026, 11, 27)


@pytest.fixture
def settings(orthanc: Orthanc, archive_path: Path, tmp_path: Path) -> Settings:
    boxes = fill(orthanc, tmp_path, IMAGES)
    facts = {"pacs": orthanc.dicomweb, "plain": True, "boxes": boxes, "archive": str(archive_path)}
    return Settings(**facts, folder=str(tmp_path / "night"))  # type: ignore[arg-type]


def runs_until_all_is_done(settings: Settings) -> list[int]:
    """The exit code of each run."""
    codes = []
    while not codes or codes[-1]:
        codes.append(night.run(settings, DAY)["exit_code"])
        assert len(codes) < 20
    return codes


def check(orthanc: Orthanc) -> None:
    """Each object is there, once."""
    made = [pydicom.dcmread(io.BytesIO(it)) for it in orthanc.instances()]
    assert sum(it.get("Manufacturer") == "sonode" for it in made) == 3 * IMAGES


def test_a_slow_service_that_fails_and_loses_answers(
    orthanc: Orthanc,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (dicomweb, stow):
        monkeypatch.setattr(module, "TIMEOUT_S", (10.0, 3.0))
    each = ("late", "500", "503", "reset", "cut", "lost")
    troubles = itertools.chain.from_iterable((None, None, None, it) for it in itertools.cycle(each))
    proxy = faulty_proxy.FaultyProxy(orthanc.address, troubles)
    with faulty_proxy.started(proxy) as address:
        through = settings.model_copy(update={"pacs": f"{address}/dicom-web"})
        runs_until_all_is_done(through)
    assert all(proxy.seen.get(it) for it in each)
    check(orthanc)


@pytest.mark.parametrize("way", ["dicomweb", "node"])
@pytest.mark.parametrize("stage", ["studies", "objects"])
def test_a_pacs_that_restarts_in_the_middle(
    orthanc: Orthanc,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    stage: str,
) -> None:
    restarted = []

    def progress(items: Iterable[Any], *, what: str, **_: Any) -> Iterator[Any]:
        for number, it in enumerate(items):
            if (number, what) == (1, stage) and not restarted:
                restarted.append(stage)
                orthanc.stop()
                orthanc.start()
            yield it

    monkeypatch.setattr(console, "progress", progress)
    by = settings.model_copy(update={"pacs": getattr(orthanc, way)})
    runs_until_all_is_done(by)
    assert restarted
    check(orthanc)
    assert night.run(by, DAY)["push"]["sent"] == 0
