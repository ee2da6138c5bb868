"""Objects reach a real Orthanc once, whatever happened before, and no other PACS."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")

from batch import layout
from batch.dicom import objects as dicom_objects
from batch.dicom import push as pushing
from batch.dicom import source
from batch.dicom.connections import Identity, NoAnswer, Web, address
from batch.dicom.destination import Destination, Instance, Refused
from batch.dicom.stow import Service
from model_def.images.decode import decode
from sonode.console import UserError, progress
from tests.batch.dicom import orthanc, ultrasound

PARTITION = "date=2026-11-27/model=net-1.0"
NAMES = ("examples_rgb_color.dcm", "examples_jpeg2k.dcm")
NONE = {"accepted": 0, "present": 0, "refused": 0, "image_unknown": 0}
URL = "https://pacs.example/dicom-web"


@pytest.fixture(scope="module")
def made() -> list[dict[str, bytes]]:
    """The objects of two images."""
    found = []
    for name in NAMES:
        data = ultrasound.data_of(name)
        grey = decode(data, None).grey_HW
        found.append(dicom_objects.make(source.read(data), grey, ultrasound.result()))
    return found


@pytest.fixture
def out(made: list[dict[str, bytes]], tmp_path: Path) -> Path:
    """Results with these objects, and a row without any."""
    folder = tmp_path / "out"
    rows: list[dict[str, str | None]] = [{"status": "none", "code": "not_dicom"}]
    for number, files in enumerate(made, start=1):
        row: dict[str, str | None] = {"status": "written"}
        for kind, data in files.items():
            name = layout.dicom_object(PARTITION, f"part-00000-ab-{number:05d}", kind)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            row[kind] = name
        rows.append(row)
    columns = ["status", "code", "message", *dicom_objects.KINDS]
    table = pa.Table.from_pylist(rows, schema=pa.schema([(it, pa.string()) for it in columns]))
    pq.write_table(table, folder / layout.dicom_record(PARTITION, "part-00000-ab"))
    return folder


class Told:
    """A PACS that has the images and does as it is told."""

    def __init__(self, answer: Callable[[str], None] = lambda uid: None) -> None:
        images = [pydicom.dcmread(ultrasound.FILES / name) for name in NAMES]
        self.has_uids = {it.SOPInstanceUID for it in images}
        self.stored: list[str] = []
        self.answer = answer
        self.gone = False

    def has(self, it: Instance) -> bool:
        if self.gone:
            raise NoAnswer("ConnectionError")
        return it.instance in self.has_uids

    def close(self) -> None:
        pass

    def store(self, file: bytes) -> None:
        uid = pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID
        self.answer(uid)
        self.has_uids.add(uid)
        self.stored.append(uid)


def pushed(out: Path, pacs: Destination, *, unknown: bool = False) -> pushing.Pushed:
    return pushing.push(str(out), URL, pacs, unknown_images=unknown, progress=progress)


def service_at(url: str) -> Service:
    return Service(Web(url), Identity.of_environment())


def ledgers(out: Path) -> list[Path]:
    return sorted((out / "_pushed").rglob("*.parquet"))


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
    (ledger,) = ledgers(out)
    rows = pq.read_table(ledger, partitioning=None).to_pylist()
    assert [row["message"] for row in rows if row["status"] == "refused"] == [
        "failure reason 0x0110"
    ]
    pacs.answer = lambda uid: None
    assert pushed(out, pacs).by_status == {**NONE, "accepted": 6}


def test_nothing_goes_where_the_image_is_not(out: Path) -> None:
    pacs = Told()
    missing = pydicom.dcmread(ultrasound.FILES / NAMES[1]).SOPInstanceUID
    pacs.has_uids.discard(missing)
    assert pushed(out, pacs).by_status == {**NONE, "accepted": 3, "image_unknown": 3}
    assert pushed(out, pacs, unknown=True).by_status == {**NONE, "accepted": 6}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("pacs.example", "give https://HOST/PATH .*AETITLE@HOST:PORT"),
        ("https://me:word@pacs.example/", "SONODE_DICOM_USER"),
        ("http://pacs.example/dicom-web", "--plain "),
    ],
)
def test_urls_that_are_not_used(url: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as raised:
        address(url, "--to", plain=False)
    assert "word" not in str(raised.value).replace("PASSWORD", "").replace("password", "")


def test_results_without_objects_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no DICOM objects"):
        pushed(tmp_path, Told())


@pytest.fixture
def pacs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with orthanc.started(tmp_path / "orthanc") as address:
        monkeypatch.setenv("SONODE_DICOM_USER", orthanc.USER)
        monkeypatch.setenv("SONODE_DICOM_PASSWORD", orthanc.PASSWORD)
        yield address


@pytest.mark.live
def test_orthanc_has_each_object_once_and_gives_it_back(
    out: Path, pacs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sonode(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "sonode", "dicom", "push", str(out), "--to", url, *words]
        return subprocess.run(command, check=False, capture_output=True, env=os.environ)

    url = f"{pacs}/dicom-web"
    service = service_at(url)
    service.store(ultrasound.data_of(NAMES[0]))
    said = []
    done = sonode()
    said.append(done)
    assert done.returncode == 1, done.stderr
    assert b"accepted                 3" in done.stdout
    assert b"image_unknown            3" in done.stdout
    service.store(ultrasound.data_of(NAMES[1]))
    for sent in (b"3", b"0"):
        said.append(done := sonode())
        assert done.returncode == 0, done.stderr
        assert b"sent now: " + sent in done.stdout
    for ledger in ledgers(out):
        ledger.unlink()
    said.append(done := sonode())
    assert b"present                  6" in done.stdout

    there = orthanc.instances(pacs)
    assert len(there) == 2 + 6
    kinds = []
    for data in there:
        it = pydicom.dcmread(io.BytesIO(data))
        if it.SOPInstanceUID.startswith("2.25."):
            kinds.append(it.Modality)
            assert ultrasound.check(tmp_path / "it.dcm", data) == []
    assert sorted(kinds) == ["OT", "OT", "PR", "PR", "SR", "SR"]

    monkeypatch.setenv("SONODE_DICOM_PASSWORD", "not it")
    said.append(done := sonode())
    assert done.returncode == 0  # all is in the ledger: nothing is asked
    for ledger in ledgers(out):
        ledger.unlink()
    said.append(done := sonode())
    assert done.returncode == 2
    assert b"HTTP 401" in done.stderr
    images = [pydicom.dcmread(ultrasound.FILES / name) for name in NAMES]
    secrets = {str(it.get(key)).encode() for it in images for key in ("PatientName", "PatientID")}
    secrets |= {it.StudyInstanceUID.encode() for it in images} | {b"2.25.", b"a word of the test"}
    output = b"".join(done.stdout + done.stderr for done in said)
    output += b"".join(path.read_bytes() for path in ledgers(out))
    assert {it for it in secrets - {b"", b"None"} if it in output} == set()


@pytest.mark.live
def test_an_orthanc_that_is_gone_is_no_answer(pacs: str) -> None:
    gone = service_at("http://127.0.0.1:9/dicom-web")
    with pytest.raises(NoAnswer):
        gone.has(Instance("1.2", "1.3", "1.4"))
    assert not service_at(f"{pacs}/dicom-web").has(Instance("1.2", "1.3", "1.4"))
