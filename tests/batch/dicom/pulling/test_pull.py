"""Whatever a PACS does, a pull and the next one bring each image once, and say what is missing."""

import itertools
import signal
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")

from batch.dicom.origins.origin import Objects
from batch.dicom.peers.answers import NoAnswer, Refused
from batch.dicom.pulling import ledger, studies
from batch.manifest.read import open_manifest, requests
from batch.results import schema as results
from batch.storage import objects
from sonode.console import UserError
from tests.batch import killed
from tests.batch.dicom.pulling import told
from tests.batch.dicom.pulling.told import STUDIES, Told, pulled, uid

ALL = {"pulled": 6, "no_image": 0, "read": 2, "refused": 0}


def table_of(out: str, name: str = "manifest.parquet") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        results.parquet(objects.read(objects.join(out, name)).data).read().to_pylist()
    )
    return rows


def test_the_manifest_is_what_score_takes(folder: str) -> None:
    out = objects.join(folder, "out")
    origin = Told()
    done = pulled(out, origin)
    assert (done.studies, done.pulled, done.by_status, done.stopped) == (2, 6, ALL, None)
    assert (done.rows, done.roi_sources, done.without_roi) == (4, {"sr": 4}, {"no_box": 2})
    assert origin.closed == 1
    with open_manifest(done.manifest or "", reserved=()) as manifest:
        (table,) = manifest.tables(100)
        asked = requests(table, manifest.folder)
    assert [it.fields for it in asked] == [{"roi": "1,2,5,6"}] * 4
    for it, study, number in zip(
        asked, [*STUDIES[:1] * 2, *STUDIES[1:] * 2], [1, 2] * 2, strict=True
    ):
        assert objects.read(it.image_uri, it.etag).data == told.image(uid(study, number))
    row = table_of(out)[3]
    assert {key: row[key] for key in row if key not in ("etag", "image_uri")} == {
        "study_uid": "1.2.2",
        "series_uid": "1.2.2.5",
        "instance_uid": "1.2.2.7.2",
        "device": "Maker Model 7",
        "frames": 1,
        "frame": None,
        "roi_x_min": 1,
        "roi_y_min": 2,
        "roi_x_max": 5,
        "roi_y_max": 6,
        "roi_source": "sr",
    }
    assert [it["instance_uid"] for it in table_of(out, "without_roi.parquet")] == [
        uid(study, 3) for study in STUDIES
    ]


def test_a_second_pull_asks_for_what_is_new_alone(folder: str) -> None:
    out = objects.join(folder, "out")
    origin = Told()
    first = pulled(out, origin)
    before = objects.read(first.manifest or "").data
    assert pulled(out, origin).pulled == 0
    assert len(origin.fetched) == 8
    assert objects.read(first.manifest or "").data == before
    origin.add(STUDIES[0], 4, told.image(uid(STUDIES[0], 4)))
    origin.add(STUDIES[1], 8, told.report(uid(STUDIES[1], 8), (uid(STUDIES[1], 3), told.BOX)), "SR")
    done = pulled(out, origin)
    assert origin.fetched[8:] == [uid(STUDIES[0], 4), uid(STUDIES[1], 8)]
    assert (done.pulled, done.rows, done.without_roi) == (1, 5, {"no_box": 2})


def test_of_an_image_that_the_pacs_has_no_more_there_is_no_row(tmp_path: Path) -> None:
    origin = Told()
    pulled(tmp_path, origin)
    origin.files = {it: file for it, file in origin.files.items() if it.instance != uid("1.2.1", 1)}
    assert pulled(tmp_path, origin).rows == 3


@pytest.mark.parametrize("after", range(1, 11))
def test_a_pacs_that_stops_gives_the_rest_later(tmp_path: Path, after: int) -> None:
    asked: list[str] = []

    def answer(what: str) -> None:
        asked.append(what)
        if len(asked) > after:
            raise NoAnswer("ConnectionError")

    origin = Told(answer)
    done = pulled(tmp_path, origin)
    assert (done.stopped, done.manifest, done.rows) == ("ConnectionError", None, 0)
    assert not (tmp_path / ledger.MANIFEST).exists()
    origin.answer = lambda what: None
    again = pulled(tmp_path, origin)
    assert (again.by_status, again.rows, again.stopped) == (ALL, 4, None)
    assert again.pulled + done.pulled == 6
    assert len(origin.fetched) == len(set(origin.fetched)) == 8


def test_a_pacs_that_restarts_is_waited_for(tmp_path: Path) -> None:
    down: list[str] = []

    def answer(what: str) -> None:
        if (down or what == uid("1.2.1", 2)) and len(down) < 3:
            down.append(what)
            raise NoAnswer("ConnectionError")

    origin = Told(answer)
    done = pulled(tmp_path, origin, waits_s=(0.0, 0.0, 0.0))
    assert (done.by_status, done.stopped) == (ALL, None)
    assert down == [uid("1.2.1", 2), "1.2.1", "1.2.1"]


@pytest.mark.parametrize("fault", [Refused("HTTP 404"), NoAnswer("HTTP 500")])
def test_one_that_is_refused_is_counted_and_asked_for_again(
    tmp_path: Path, fault: Exception
) -> None:
    def answer(what: str) -> None:
        if what == uid("1.2.1", 2):
            raise fault

    origin = Told(answer)
    done = pulled(tmp_path, origin)
    reason = str(fault) if isinstance(fault, Refused) else f"no answer to this object ({fault})"
    assert done.by_status == {**ALL, "pulled": 5, "refused": 1}
    assert (done.refusals, done.rows, done.stopped) == ({reason: 1}, 3, None)
    origin.answer = lambda what: None
    assert (again := pulled(tmp_path, origin)).by_status == ALL
    assert (again.pulled, again.rows) == (1, 4)


def test_what_is_not_what_was_asked_for_is_refused(tmp_path: Path) -> None:
    origin = Told()
    origin.add("1.2.1", 1, told.image(uid("1.2.1", 2)))
    origin.add("1.2.1", 2, b"<html>")
    broken = told.report(uid("1.2.1", 9), (uid("1.2.1", 3), told.BOX)).replace(
        b"POLYLINE", b"CIRCLE  "
    )
    origin.add("1.2.1", 9, broken, "SR")
    done = pulled(tmp_path, origin)
    assert done.refusals == {
        "its drawings cannot be read": 1,
        "its header cannot be read": 1,
        "the PACS sent another object in its place": 1,
    }
    assert done.pulled == 4


def test_objects_without_pixels_and_of_other_modalities(tmp_path: Path) -> None:
    origin = Told()
    origin.add("1.2.1", 1, told.image(uid("1.2.1", 1), Rows=0))
    other = told.image(uid("1.2.1", 2), Modality="MG")
    origin.add("1.2.1", 2, other)
    named = Told.objects

    def objects(study: str, modalities: Collection[str], told: int | None) -> Objects:
        found = named(origin, study, modalities, told).named
        return Objects([it._replace(modality=None) for it in found], 0)

    origin.objects = objects  # type: ignore[method-assign]
    assert pulled(tmp_path, origin).by_status == {**ALL, "pulled": 4, "no_image": 2}


def test_several_connections_and_two_pulls_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Told()

    def answer(what: str) -> None:
        if what == uid("1.2.1", 3):  # another pull comes between
            origin.answer = lambda what: None
            pulled(tmp_path, other)

    origin = Told(answer)
    monkeypatch.setattr(studies, "_WRITE_EACH", 2)
    done = pulled(tmp_path, origin, connections=3)
    assert (done.by_status, done.rows) == (ALL, 4)
    count = sum(pq.read_metadata(it).num_rows for it in (tmp_path / "_pulled").iterdir())
    assert count == 8


def check_completed(out: Path, log: Path) -> None:
    """The next pull makes all; at most the object that was on its way comes a second time."""
    origin = Told()
    done = pulled(out, origin)
    assert (done.by_status, done.rows) == (ALL, 4)
    first = log.read_text().split() if log.exists() else []
    both = Counter(it for it in (*first, *origin.fetched) if not it.endswith(".9"))
    assert len(both) == 6
    assert both.total() <= 7
    assert sorted(it.name for it in out.rglob("*.dcm")) == sorted(
        Path(ledger.object_name(it.study, it.instance)).name
        for it, (modality, _) in origin.files.items()
        if modality == "US"
    )


def test_a_pull_that_ends_anywhere_is_completed_by_the_next(tmp_path: Path) -> None:
    for boundary in itertools.count():
        out, log = tmp_path / f"out{boundary}", tmp_path / f"log{boundary}"
        with pytest.MonkeyPatch.context() as patch:
            try:
                told.until(boundary, str(out), log, patch.setattr, real=False)
            except told.Killed:
                whole = False
            else:
                whole = True
        check_completed(out, log)
        if whole:
            break
    assert boundary > 30


@pytest.mark.parametrize("boundary", [9, 16, 29])
def test_a_pull_that_is_killed_is_completed_by_the_next(tmp_path: Path, boundary: int) -> None:
    process = killed.started(told.really, boundary, str(tmp_path / "out"), tmp_path / "log")
    process.join()
    assert process.exitcode == -signal.SIGKILL
    check_completed(tmp_path / "out", tmp_path / "log")


def test_no_path_and_no_message_names_anybody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def answer(what: str) -> None:
        if what == uid("1.2.1", 2):
            raise Refused("HTTP 404")

    done = pulled(tmp_path, Told(answer))
    said = "".join(capfd.readouterr()) + str(done)
    said += "".join(str(it) for it in tmp_path.rglob("*"))
    kept = b"".join(it.read_bytes() for it in tmp_path.rglob("*.parquet"))
    for secret in (told.NAME, told.PATIENT):
        assert secret not in said
        assert secret.encode() not in kept
    assert "1.2.1" not in said


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"connections": 0}, "--connections 0"),
        ({"connections": 17}, "--connections 17"),
        ({"modality": "us"}, "--modality"),
        ({"modality": "SR"}, "--modality"),
    ],
)
def test_settings_that_are_not_used(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        pulled(tmp_path, Told(), **changed)


def test_an_out_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pulled(tmp_path, Told())
    for it in (tmp_path / "_pulled").iterdir():
        it.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="remove it and re-run"):
        pulled(tmp_path, Told())
