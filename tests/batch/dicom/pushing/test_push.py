"""Objects reach a real Orthanc once, whatever happened before, and no other PACS."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from batch.dicom.peers.answers import Instance, NoAnswer, Refused
from batch.dicom.pushing import push as pushing
from batch.dicom.pushing import sending
from batch.dicom.pushing.destination import Destination
from sonode.console import UserError, progress
from sonode.demo.local_s3 import LocalS3
from tests.batch.dicom import ultrasound
from tests.batch.dicom.conftest import BY_DIMSE, NAMES, Objects, put_record
from tests.batch.dicom.pacs import Orthanc

pytestmark = BY_DIMSE

STATUSES = ("accepted", "present", "unconfirmed", "refused", "image_unknown", "patient_changed")
NONE = dict.fromkeys(STATUSES, 0)
URL = "https://pacs.example/dicom-web"
IMAGES = [pydicom.dcmread(ultrasound.FILES / name, stop_before_pixels=True) for name in NAMES]


class Told:
    """A PACS that has the images and does as it is told."""

    def __init__(self, answer: Callable[[str], None] = lambda uid: None) -> None:
        self.has_uids = {it.SOPInstanceUID for it in IMAGES}
        self.stored: list[str] = []
        self.answer = answer
        self.gone = False
        self.drops: set[str] = set()
        self.to_a_list: Callable[[list[str]], set[str]] = self.has_uids.intersection

    def tells(self) -> bool:
        return True

    def named(self, its: Sequence[Instance]) -> set[str]:
        if self.gone:
            raise NoAnswer("ConnectionError")
        return self.to_a_list([it.instance for it in its])

    def has(self, it: Instance) -> bool:
        if self.gone:
            raise NoAnswer("ConnectionError")
        return it.instance in self.has_uids

    def patients(self, study: str) -> list[pydicom.Dataset]:
        if self.gone:
            raise NoAnswer("ConnectionError")
        return [it for it in IMAGES if it.StudyInstanceUID == study]

    def close(self) -> None:
        pass

    def store(self, made: pydicom.Dataset) -> None:
        uid = made.SOPInstanceUID
        self.answer(uid)
        if uid not in self.drops:
            self.has_uids.add(uid)
        self.stored.append(uid)


def pushed(out: Path, pacs: Destination, *, unknown: bool = False) -> pushing.Pushed:
    return pushing.push(str(out), URL, pacs, unknown_images=unknown, progress=progress)


def pushed_to(out: str, to: str, *, unknown: bool = False) -> pushing.Pushed:
    return pushing.push_to(
        out, to, title="SONODE", plain=True, unknown_images=unknown, progress=progress
    )


def ledgers(out: Path) -> list[Path]:
    return sorted((out / "_pushed").rglob("*.parquet"))


def messages(out: Path, status: str) -> list[str]:
    (ledger,) = ledgers(out)
    rows = pq.read_table(ledger, partitioning=None).to_pylist()
    return [row["message"] for row in rows if row["status"] == status]


def test_a_second_push_sends_nothing(out: Path) -> None:
    pacs = Told()
    done = pushed(out, pacs)
    assert (done.by_status, done.sent, done.stopped) == ({**NONE, "accepted": 6}, 6, None)
    assert pushed(out, pacs).sent == 0
    assert len(pacs.stored) == len(set(pacs.stored)) == 6


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_pacs_that_stops_is_sent_the_rest_later(out: Path, after: int) -> None:
    def answer(uid: str) -> None:
        if len(pacs.stored) == after:
            pacs.gone = True
            raise NoAnswer("ConnectionError")

    pacs = Told(answer)
    done = pushed(out, pacs)
    assert (done.sent, done.stopped) == (after, "ConnectionError")
    pacs.answer, pacs.gone = (lambda uid: None), False
    assert pushed(out, pacs).by_status == {**NONE, "accepted": 6}
    assert len(pacs.stored) == 6


def test_a_pacs_that_restarts_is_waited_for(out: Path) -> None:
    class Restarting(Told):
        questions = 0

        def has(self, it: Instance) -> bool:
            self.questions += self.gone
            self.gone = self.gone and self.questions < 3
            return super().has(it)

    def answer(uid: str) -> None:
        if len(pacs.stored) == 2 and not pacs.questions:
            pacs.gone = True
            raise NoAnswer("ConnectionError")

    pacs = Restarting(answer)
    done = pushed(out, pacs)
    assert (done.by_status, done.sent) == ({**NONE, "accepted": 6}, 6)
    assert (pacs.questions, len(pacs.stored)) == (3, 6)


def test_what_was_sent_before_a_kill_is_not_sent_again(out: Path) -> None:
    pacs = Told()
    pushed(out, pacs)
    for ledger in ledgers(out):
        ledger.unlink()  # killed between the objects and the ledger
    assert pushed(out, pacs).by_status == {**NONE, "present": 6}
    assert len(pacs.stored) == 6


def test_one_that_is_refused_is_named_and_tried_again(out: Path) -> None:
    refused: list[str] = []

    def answer(uid: str) -> None:
        if not refused or uid in refused:
            refused.append(uid)
            raise Refused("failure reason 0x0110")

    pacs = Told(answer)
    assert pushed(out, pacs).by_status == {**NONE, "accepted": 5, "refused": 1}
    assert messages(out, "refused") == ["failure reason 0x0110"]
    pacs.answer = lambda uid: None
    assert pushed(out, pacs).by_status == {**NONE, "accepted": 6}


def test_one_that_a_pacs_stumbles_over_does_not_keep_back_the_others(out: Path) -> None:
    tried: list[str] = []

    def answer(uid: str) -> None:
        tried.append(uid)
        if uid == tried[0]:
            raise NoAnswer("HTTP 500")

    assert pushed(out, Told(answer)).by_status == {**NONE, "accepted": 5, "refused": 1}
    assert tried.count(tried[0]) == 2


def test_an_answer_that_is_lost_is_asked_for(out: Path) -> None:
    def answer(uid: str) -> None:
        pacs.has_uids.add(uid)
        raise NoAnswer("ReadTimeout")

    pacs = Told(answer)
    assert pushed(out, pacs).by_status == {**NONE, "accepted": 6}
    assert len(messages(out, "accepted")) == 6


def test_nothing_goes_where_the_image_is_not(out: Path) -> None:
    pacs = Told()
    pacs.has_uids.discard(IMAGES[1].SOPInstanceUID)
    assert pushed(out, pacs).by_status == {**NONE, "accepted": 3, "image_unknown": 3}
    assert pushed(out, pacs, unknown=True).by_status == {**NONE, "accepted": 6}


def test_results_without_objects_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no DICOM objects"):
        pushed(tmp_path, Told())


@pytest.mark.live
@pytest.mark.parametrize("way", ["stow", "c-store"])
def test_orthanc_has_each_object_once_and_gives_it_back(
    out: Path, orthanc: Orthanc, made: list[Objects], tmp_path: Path, way: str
) -> None:
    to = orthanc.dicomweb if way == "stow" else orthanc.node
    orthanc.put(ultrasound.data_of(NAMES[0]))
    assert pushed_to(str(out), to).by_status == {**NONE, "accepted": 3, "image_unknown": 3}
    orthanc.put(ultrasound.data_of(NAMES[1]))
    done = pushed_to(str(out), to)
    assert (done.by_status, done.sent) == ({**NONE, "accepted": 6}, 3)
    assert pushed_to(str(out), to).sent == 0
    for ledger in ledgers(out):
        ledger.unlink()
    assert pushed_to(str(out), to).by_status == {**NONE, "present": 6}

    assert len(orthanc.received()) == len(set(orthanc.received())) == 2 + 6
    there = {it.SOPInstanceUID: it for it in map(read, orthanc.instances())}
    for files in made:
        for data in files.values():
            sent = read(data)
            assert there[sent.SOPInstanceUID] == sent
    errors = [ultrasound.check(tmp_path / "it.dcm", data) for data in orthanc.instances()[:8]]
    # `present` of the images themselves is not ours to judge.
    uids = [read(data).SOPInstanceUID for data in orthanc.instances()]
    assert [found for uid, found in zip(uids, errors, strict=True) if uid[:5] == "2.25."] == [
        []
    ] * 6


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


@pytest.mark.live
@pytest.mark.parametrize("way", ["stow", "c-store"])
def test_an_orthanc_that_ends_in_the_middle_is_sent_the_rest(
    tmp_path: Path, orthanc: Orthanc, made: list[Objects], way: str
) -> None:
    out = tmp_path / "records"

    def ending(entries: object, **more: object):
        for number, entry in enumerate(entries):  # type: ignore[arg-type, var-annotated]
            if number == 2:  # the first record has come to its end
                orthanc.stop()
            yield entry

    for index, files in enumerate(made):
        put_record(out, index, [files])
    to = orthanc.dicomweb if way == "stow" else orthanc.node
    for name in NAMES:
        orthanc.put(ultrasound.data_of(name))
    given = {"title": "SONODE", "plain": True, "unknown_images": False}
    try:
        done = pushing.push_to(str(out), to, **given, progress=ending)  # type: ignore[arg-type]
        assert done.sent == 3
        assert done.stopped
    finally:
        orthanc.start()
    done = pushed_to(str(out), to)
    assert (done.by_status, done.sent) == ({**NONE, "accepted": 6}, 3)
    assert len(orthanc.received()) == 2 + 6


@pytest.mark.live
def test_results_in_a_store_are_sent(
    out: Path, orthanc: Orthanc, server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batch.storage import objects

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    for path in out.rglob("*.*"):
        if path.is_file():
            objects.write(f"s3://studies/pushed/{path.relative_to(out)}", path.read_bytes())
    orthanc.put(ultrasound.data_of(NAMES[0]))
    orthanc.put(ultrasound.data_of(NAMES[1]))
    assert pushed_to("s3://studies/pushed", orthanc.node).by_status == {**NONE, "accepted": 6}
    assert pushed_to("s3://studies/pushed", orthanc.node).sent == 0
    assert pushed_to("s3://studies/pushed", orthanc.dicomweb).by_status == {**NONE, "present": 6}
    assert len(orthanc.received()) == 2 + 6


@pytest.mark.live
@pytest.mark.parametrize("way", ["stow", "c-store"])
def test_an_orthanc_whose_filter_drops_what_it_accepts_is_found_out(
    out: Path, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(sending, "LATE_S", (0.0,))
    to = orthanc.dicomweb if way == "stow" else orthanc.node
    for name in NAMES:
        orthanc.put(ultrasound.data_of(name))
    orthanc.drop("SR")
    done = pushed_to(str(out), to)
    kept = {**NONE, "accepted": 4, "unconfirmed": 2}
    assert (done.by_status, done.not_sent) == (kept, {"2026-11-27": 2})
    orthanc.drop(None)
    done = pushed_to(str(out), to)
    assert (done.by_status, done.sent) == ({**NONE, "accepted": 6}, 2)
    assert len(orthanc.instances()) == 2 + 6


@pytest.mark.live
def test_the_command_says_nothing_of_patients(
    out: Path, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sonode(to: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "sonode", "dicom", "push", str(out), "--to", to, *words]
        return subprocess.run(command, check=False, capture_output=True, env=os.environ)

    orthanc.put(ultrasound.data_of(NAMES[0]))
    said = [sonode(orthanc.dicomweb), sonode(orthanc.node, "--plain", "--unknown-images")]
    assert [done.returncode for done in said] == [1, 0], said
    assert b"image_unknown            3" in said[0].stdout
    assert b"accepted                 3" in said[1].stdout
    assert b"present                  3" in said[1].stdout
    monkeypatch.setenv("SONODE_DICOM_PASSWORD", "not it")
    said.append(done := sonode(orthanc.dicomweb))
    assert done.returncode == 2
    assert b"HTTP 401" in done.stderr
    secrets = {str(it.get(key)).encode() for it in IMAGES for key in ("PatientName", "PatientID")}
    secrets |= {it.StudyInstanceUID.encode() for it in IMAGES} | {b"2.25.", b"a word of the test"}
    output = b"".join(done.stdout + done.stderr for done in said)
    output += b"".join(path.read_bytes() for path in ledgers(out))
    assert {it for it in secrets - {b"", b"None"} if it in output} == set()
