"""C-MOVE: the PACS sends to sonode what it has asked for, and nobody else sends anything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")
pytest.importorskip("pynetdicom", reason="the extra `dicom` is not installed")

from pynetdicom import AE

from batch.dicom.origins.receiver import Receiver
from batch.dicom.peers.identity import Identity
from sonode.console import UserError
from tests.batch.dicom import pacs, ultrasound
from tests.batch.dicom.conftest import BY_DIMSE
from tests.batch.dicom.pacs import Orthanc
from tests.batch.dicom.peers.test_connections import certificates  # noqa: F401 - a fixture
from tests.batch.dicom.pulling.test_orthanc import originals, pulled

pytestmark = [pytest.mark.live, *BY_DIMSE]


@contextmanager
def registered(folder: Path, port: int, **more: object) -> Iterator[Orthanc]:
    """An Orthanc with all images that knows SONODE at a port, and GONE at one where nobody is."""
    its = {"Host": "localhost", "Port": port, "UseDicomTls": bool(more)}
    known = {
        "it": {"AET": "SONODE", **its},
        "gone": {"AET": "GONE", **its, "Port": pacs.free_port()},
    }
    settings = {"DicomModalities": known, "DicomAlwaysAllowMove": True, **more}
    with pacs.started(folder, **settings) as orthanc:
        for name in ultrasound.NAMES:
            orthanc.put(ultrasound.data_of(name))
        yield orthanc


def test_all_images_come_and_wrong_destinations_are_one_line(tmp_path: Path) -> None:
    port = pacs.free_port()
    with registered(tmp_path / "orthanc", port) as orthanc:
        done = pulled(orthanc.node, tmp_path / "out", receive=port)
        assert (done.pulled, done.refusals, done.stopped) == (5, {}, None)
        again = pulled(orthanc.node, tmp_path / "out", receive=port)
        assert (again.pulled, again.by_status["pulled"]) == (0, 5)
        with pytest.raises(UserError, match=rf"--from: .*NOBODY.* port {port}"):
            pulled(orthanc.node, tmp_path / "a", receive=port, title="NOBODY")
        with pytest.raises(UserError, match=r"--from: nothing came by C-MOVE to GONE, port"):
            pulled(orthanc.node, tmp_path / "b", receive=port, title="GONE")
        with socket.create_server(("", port)), pytest.raises(UserError, match=f"port {port}: "):
            pulled(orthanc.node, tmp_path / "c", receive=port)
        with pytest.raises(UserError, match="--receive: a DICOMweb service"):
            pulled(orthanc.dicomweb, tmp_path / "d", receive=port)
    left = originals()
    for path in (tmp_path / "out").rglob("*.dcm"):
        came = pydicom.dcmread(path)
        stored = left.pop(came.SOPInstanceUID)
        assert len(came.PixelData) == len(stored.PixelData)
        assert came.file_meta.TransferSyntaxUID == stored.file_meta.TransferSyntaxUID
    assert not left


def test_another_pacs_and_the_standards_own_status(tmp_path: Path) -> None:
    port = pacs.free_port()
    with pacs.dcmqrscp(tmp_path / "pacs", port) as node:
        image = pydicom.dcmread(ultrasound.FILES / "examples_rgb_color.dcm")
        pacs.store(node, image)
        for name, more in (("move", {"receive": port}), ("get", {})):
            done = pulled(node, tmp_path / name, **more)
            assert (done.pulled, done.lacking, done.refusals) == (1, 0, {})
        with pytest.raises(UserError, match=rf"NOBODY as a destination .*0xa801.* port {port}"):
            pulled(node, tmp_path / "none", receive=port, title="NOBODY")


def test_by_tls_with_certificates_of_both(
    certificates: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = pacs.free_port()
    with registered(tmp_path / "orthanc", port, **pacs.tls_alone(certificates)) as orthanc:
        monkeypatch.setenv("SONODE_DICOM_CA", str(certificates / "authority.crt"))
        with pytest.raises(UserError, match="SONODE_DICOM_CERT"):
            pulled(orthanc.node, tmp_path / "out", receive=port, plain=False)
        monkeypatch.setenv("SONODE_DICOM_CERT", str(certificates / "client.pem"))
        for name, more in (("move", {"receive": port}), ("get", {})):
            done = pulled(orthanc.node, tmp_path / name, plain=False, **more)
            assert (done.pulled, done.refusals, done.stopped) == (5, {}, None)
        monkeypatch.setenv("SONODE_DICOM_CERT", str(certificates / "stranger.pem"))
        with pytest.raises(UserError, match=r"--from: .*SONODE_DICOM_CERT"):
            pulled(orthanc.node, tmp_path / "none", plain=False)


def test_what_was_not_asked_for_is_not_taken() -> None:
    port = pacs.free_port()
    receiver = Receiver("SONODE", port, Identity(), plain=True)
    try:
        image = pydicom.dcmread(ultrasound.FILES / "examples_rgb_color.dcm")
        caller = AE("ANYBODY")
        caller.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
        assert caller.associate("localhost", port, ae_title="OTHER").is_rejected
        association = caller.associate("localhost", port, ae_title="SONODE")
        assert association.send_c_store(image).Status == 0x0124
        with receiver.waiting_for(image.SOPInstanceUID) as came:
            assert came() is None
            assert association.send_c_store(image).Status == 0
            assert came() is not None
        association.release()
    finally:
        receiver.close()


def test_an_object_of_two_studies_is_taken_for_one_after_the_other() -> None:
    receiver = Receiver("SONODE", pacs.free_port(), Identity(), plain=True)
    taken = threading.Event()

    def take() -> None:
        with receiver.waiting_for("1.2"):
            taken.set()

    other = threading.Thread(target=take)
    try:
        with receiver.waiting_for("1.2") as came:
            other.start()
            assert not taken.wait(0.2)
            assert came() is None
        assert taken.wait(60)
        other.join()
    finally:
        receiver.close()
