"""Both ways from a real Orthanc: every file whole, once, and with the boxes that a viewer drew."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from batch.dicom.making import objects as dicom_objects
from batch.dicom.making import source
from batch.dicom.pulling.pull import Pulled, Settings, pull
from model_def.images.decode import decode
from sonode.console import UserError, progress
from tests.batch import faulty_proxy
from tests.batch.dicom import ultrasound
from tests.batch.dicom.conftest import BY_DIMSE, NAMES, Objects
from tests.batch.dicom.pacs import Orthanc
from tests.batch.faulty_proxy import FaultyProxy

pytestmark = [pytest.mark.live, *BY_DIMSE]
LOOP = "examples_ybr_color.dcm"
ROI = (10, 20, 50, 45)


@pytest.fixture(scope="module")
def viewers(made: list[Objects]) -> list[bytes]:
    """A viewer's SR and presentation state of the first image, and its SR of a loop's frame."""
    loop = ultrasound.data_of(LOOP)
    of_loop = dicom_objects.make(
        source.read(loop), decode(loop, 3).grey_HW, ultrasound.result(frame=3, roi=ROI)
    )
    found = []
    for number, data in enumerate((made[0]["sr"], made[0]["pr"], of_loop["sr"])):
        its = pydicom.dcmread(io.BytesIO(data))
        its.Manufacturer = "a viewer"
        its.SOPInstanceUID = its.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        found.append(ultrasound.encoded(its))
    return found


@pytest.fixture
def filled(orthanc: Orthanc, made: list[Objects], viewers: list[bytes]) -> Orthanc:
    """With all images, what a viewer made of two, and what sonode made of two."""
    for data in viewers:
        orthanc.put(data)
    for name in ultrasound.NAMES:
        orthanc.put(ultrasound.data_of(name))
    for its in made:
        for data in its.values():
            orthanc.put(data)
    return orthanc


def pulled(address: str, out: Path, **changed: object) -> Pulled:
    facts = {"since": date(1990, 1, 1), "plain": True, "waits_s": (0.1, 0.1), **changed}
    return pull(Settings(source=address, out=str(out), **facts), progress)  # type: ignore[arg-type]


def originals() -> dict[str, pydicom.Dataset]:
    read = [pydicom.dcmread(ultrasound.FILES / name) for name in ultrasound.NAMES]
    return {it.SOPInstanceUID: it for it in read}


@pytest.mark.parametrize("way", ["dicomweb", "node"])
def test_every_image_comes_as_it_is_stored(filled: Orthanc, tmp_path: Path, way: str) -> None:
    done = pulled(getattr(filled, way), tmp_path)
    assert (done.studies, done.pulled, done.stopped, done.refusals) == (4, 5, None, {})
    assert (done.roi_sources, done.without_roi) == ({"sr": 2}, {"no_box": 3})
    rows = {it["instance_uid"]: it for it in pq.read_table(done.manifest).to_pylist()}
    for name, frame in ((NAMES[0], None), (LOOP, 3)):
        row = rows.pop(pydicom.dcmread(ultrasound.FILES / name).SOPInstanceUID)
        assert row["frame"] == frame
        assert tuple(row[f"roi_{it}"] for it in ("x_min", "y_min", "x_max", "y_max")) == ROI
    assert not rows
    left = originals()
    for path in tmp_path.rglob("*.dcm"):
        came = pydicom.dcmread(path)
        stored = left.pop(came.SOPInstanceUID)
        assert came.file_meta.TransferSyntaxUID == stored.file_meta.TransferSyntaxUID
        for element in stored:  # but for lengths of groups and padding, which are not sent
            if element.tag.element and element.keyword != "DataSetTrailingPadding":
                assert came[element.tag] == element
    assert not left
    assert pulled(getattr(filled, way), tmp_path).pulled == 0


def test_since_and_modality_choose(filled: Orthanc, tmp_path: Path) -> None:
    for way in (filled.dicomweb, filled.node):
        assert pulled(way, tmp_path / "a", since=date(2011, 5, 25)).studies == 2
        assert pulled(way, tmp_path / "b", modality="MG").studies == 0


def test_a_restart_between_two_pulls_and_none_there(filled: Orthanc, tmp_path: Path) -> None:
    try:
        filled.stop()
        for way in ("dicomweb", "node"):
            done = pulled(getattr(filled, way), tmp_path / way)
            assert (done.pulled, done.manifest) == (0, None)
            assert done.stopped
    finally:
        filled.start()
    for way in ("dicomweb", "node"):
        assert pulled(getattr(filled, way), tmp_path / way).pulled == 5


def test_a_service_in_trouble_gives_all_in_the_end(filled: Orthanc, tmp_path: Path) -> None:
    """Answers that fail, are cut or lost: none of it is taken for an object or for an end."""
    each = ("500", "503", "reset", "cut", "lost")
    troubles = faulty_proxy.cycle(*(it for fault in each for it in (None, None, fault, None)))
    with faulty_proxy.started(FaultyProxy(filled.address, troubles)) as address:
        for number in itertools.count():
            done = pulled(f"{address}/dicom-web", tmp_path, connections=1, waits_s=(0.0,) * 5)
            if done.manifest is not None and not done.refusals:
                break
            assert number < 20
    assert done.by_status["pulled"] == 5
    assert done.rows == 2
    sizes = {it.SOPInstanceUID: len(it.PixelData) for it in originals().values()}
    for path in tmp_path.rglob("*.dcm"):
        came = pydicom.dcmread(path)
        assert len(came.PixelData) == sizes[came.SOPInstanceUID]


@pytest.mark.parametrize("way", ["dicomweb", "node"])
def test_the_command_names_nobody(
    filled: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def sonode(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "sonode", "dicom", "pull", str(tmp_path / "out")]
        command += ["--from", getattr(filled, way), "--since", "1990-01-01", "--plain", *words]
        return subprocess.run(command, check=False, capture_output=True, env=os.environ)

    said = [sonode()]
    assert said[0].returncode == 0, said
    assert b"images pulled now: 5" in said[0].stdout
    if way == "dicomweb":
        monkeypatch.setenv("SONODE_DICOM_PASSWORD", "not it")
        said.append(sonode("--json"))
        assert said[-1].returncode == 2
        assert b"HTTP 401" in said[-1].stderr
    output = b"".join(it.stdout + it.stderr for it in said)
    kept = b"".join(it.read_bytes() for it in (tmp_path / "out").rglob("*.parquet"))
    paths = "".join(str(it.relative_to(tmp_path)) for it in tmp_path.rglob("*")).encode()
    for it in originals().values():
        for secret in (it.get(key) for key in ("PatientName", "PatientID", "AccessionNumber")):
            if secret and len(str(secret)) > 4:  # fewer may be in a hash by chance
                assert str(secret).encode() not in output + kept + paths
        assert it.SOPInstanceUID.encode() not in output + paths
        assert it.StudyInstanceUID.encode() not in output + paths
    assert b"a word of the test" not in output


def test_an_address_of_something_else_is_one_line(filled: Orthanc, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--from: no DICOMweb service"):
        pulled(f"{filled.address}/nothing", tmp_path)
