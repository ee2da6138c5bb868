"""A PACS that names a part of its studies, and says nothing of it, loses none here."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from batch.dicom.origins.spans import Found, Span, studies
from sonode.console import UserError
from tests.batch.dicom import pacs, ultrasound
from tests.batch.dicom.conftest import BY_DIMSE
from tests.batch.dicom.pulling.test_orthanc import pulled

pytestmark = BY_DIMSE
DAY = date(2026, 11, 27)


class Limited:
    """Studies at a day and an hour, and a PACS that names the first ones of what is asked for."""

    def __init__(self, limit: int, *at: tuple[date, int]) -> None:
        self.limit, self.at = limit, at
        self.asked: Counter[Span] = Counter()

    def __call__(self, span: Span) -> Found:
        self.asked[span] += 1
        named = [
            f"2.25.{number}"
            for number, (day, hour) in enumerate(self.at)
            if span.has(f"{day:%Y%m%d}", f"{hour:02}3000")
        ]
        return dict.fromkeys(named[: self.limit])


def test_a_span_as_dicom_has_it() -> None:
    assert (Span(DAY).dates, Span(DAY, DAY).dates) == ("20261127-", "20261127-20261127")
    assert Span(DAY, DAY, 7).times == "070000-075959.999999"
    assert Span(DAY).has("20991231", None)
    assert Span(DAY).has(None, None)  # of a study without a date it is not known
    assert not Span(DAY, DAY).has("20261128", "070000")
    assert Span(DAY, DAY, 7).has("20261127", "0759")
    assert not Span(DAY, DAY, 7).has("20261127", "0800")


@pytest.mark.parametrize("days", [0, 1, 6, 7, 8, 400])
def test_parts_cover_every_day_once(days: int) -> None:
    span = Span(DAY - timedelta(days=days))
    parts = span.parts(today=DAY)
    covered = [
        it.first + timedelta(days=each)
        for it in parts
        if it.last
        for each in range((it.last - it.first).days + 1)
    ]
    if days == 0:  # hours, and what is later
        assert [it.hour for it in parts] == [*range(24), None]
    else:
        assert covered == [span.first + timedelta(days=it) for it in range(days + 1)]
    assert parts[-1] == Span(DAY + timedelta(days=1))


def test_a_few_are_asked_for_once() -> None:
    ask = Limited(1000, *((DAY, hour) for hour in range(9)))
    assert len(studies(DAY, ask, DAY)) == sum(ask.asked.values()) * 9 == 9


def test_a_limit_is_found_out() -> None:
    busy = [(DAY - timedelta(days=day), hour) for day in range(7) for hour in range(24)] * 2
    ask = Limited(15, *busy, (DAY + timedelta(days=30), 3))  # of a device whose clock is wrong
    assert len(studies(DAY - timedelta(days=6), ask, DAY)) == 2 * 7 * 24 + 1
    assert max(ask.asked.values()) == 1


def test_one_that_cannot_be_got_round_is_named() -> None:
    ask = Limited(10, *((DAY, hour) for hour in range(8, 18)), *[(DAY, 9)] * 20)
    with pytest.raises(UserError, match="names 10 studies at once and no more"):
        studies(DAY, ask, DAY)


def test_studies_without_a_time_are_in_no_hour_so_a_limit_may_hide_some() -> None:
    timed = Limited(11, *((DAY, hour) for hour in range(20)))

    def ask(span: Span) -> Found:
        return timed(span) | ({"2.25.99": None} if span.hour is None and span.first <= DAY else {})

    with pytest.raises(UserError, match="names 12 studies at once and no more"):
        studies(DAY, ask, DAY)


def test_without_a_limit_an_hour_may_have_all() -> None:
    assert len(studies(DAY, Limited(1000, *[(DAY, 9)] * 50), DAY)) == 50


@pytest.mark.live
@pytest.mark.parametrize("way", ["dicomweb", "node"])
def test_orthancs_own_limits(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONODE_DICOM_USER", pacs.USER)
    monkeypatch.setenv("SONODE_DICOM_PASSWORD", pacs.PASSWORD)
    limits = {"LimitFindResults": 10, "LimitFindInstances": 2}
    with pacs.started(tmp_path / "orthanc", **limits) as orthanc:
        for number in range(14):
            at = {"StudyDate": f"202611{10 + number // 2}", "StudyTime": f"{8 + number:02}3000"}
            study = {"StudyInstanceUID": f"2.25.1{number}", "SeriesInstanceUID": f"2.25.2{number}"}
            for image in range(3 if number == 0 else 1):
                uid = f"2.25.3{number}{image}"
                its = {**at, **study, "SOPInstanceUID": uid}
                orthanc.put(ultrasound.data_of("examples_rgb_color.dcm", **its))
        done = pulled(getattr(orthanc, way), tmp_path / "out", since=date(2026, 11, 1))
    assert (done.studies, done.stopped) == (14, None)
    # Of one study it counts three images and names fewer, whichever way it is asked.
    assert done.pulled + done.lacking == 16
    assert done.lacking == (0 if way == "dicomweb" else 1)
