"""Real PACSs on loopback: Orthanc (Debian's orthanc and orthanc-dicomweb) and DCMTK's dcmqrscp."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pydicom
import pytest

from tests.loopback import LOOPBACK
from tests.processes import listening

USER, PASSWORD = "sonode", "a word of the test"
_PLUGIN = "libOrthancDicomWeb.so"

# It notes what comes, also what it has already.
_LUA = """
function ReceivedInstanceFilter(dicom, origin, info)
  local file = io.open("%s/received", "a")
  file:write(dicom.SOPInstanceUID .. "\\n")
  file:close()
  local drop = io.open("%s/drop")
  if drop == nil then return true end
  local modality = drop:read()
  drop:close()
  return dicom.Modality ~= modality
end
"""


@dataclass(frozen=True)
class Orthanc:
    """One that runs."""

    address: str
    node: str
    folder: Path
    _process: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def dicomweb(self) -> str:
        return f"{self.address}/dicom-web"

    def instances(self) -> list[bytes]:
        """All files that it has."""
        return [self._ask(f"/instances/{it}/file").content for it in self._instances()]

    def received(self) -> list[str]:
        """The SOP instance UID of each object that came, as often as it came."""
        file = self.folder / "received"
        return file.read_text().splitlines() if file.exists() else []

    def drop(self, modality: str | None) -> None:
        """Let its filter drop objects of a modality, of which it says all the same that it took."""
        if modality is None:
            (self.folder / "drop").unlink(missing_ok=True)
        else:
            (self.folder / "drop").write_text(modality)

    def put(self, data: bytes) -> None:
        """Store a file."""
        self._ask("/instances", "POST", content=data)

    def correct_patient(self, patient_id: str) -> None:
        """Give its one patient another id, as an operator does; the UIDs stay."""
        (it,) = self._ask("/patients").json()
        uids = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
        asked = {"Replace": {"PatientID": patient_id}, "Keep": uids, "KeepSource": False}
        answer = json.dumps({**asked, "Force": True}).encode()
        self._ask(f"/patients/{it}/modify", "POST", content=answer)

    def empty(self) -> None:
        """Remove all objects, and what is known of them."""
        for it in self._ask("/patients").json():
            self._ask(f"/patients/{it}", "DELETE")
        (self.folder / "received").unlink(missing_ok=True)
        self.drop(None)

    def _instances(self) -> list[str]:
        found: list[str] = self._ask("/instances").json()
        return found

    def _ask(self, path: str, method: str = "GET", **more: bytes) -> httpx.Response:
        answer = LOOPBACK.request(
            method,
            f"{self.address}{path}",
            auth=(USER, PASSWORD),
            timeout=60,
            **more,  # type: ignore[arg-type]
        )
        return answer.raise_for_status()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            command = [_program(), str(self.folder / "orthanc.json")]
            self._process.append(subprocess.Popen(command, stdout=log, stderr=log))
        for _ in range(600):
            said = (self.folder / "log").read_text(errors="replace")[-2000:]
            assert self._process[-1].poll() is None, said
            try:
                self._ask("/system")
            except httpx.ConnectError:
                time.sleep(0.2)
            else:
                return
        raise AssertionError(said)

    def stop(self) -> None:
        """End it at once, with what it has on the disk."""
        self._process[-1].kill()
        self._process[-1].wait()


def tls_alone(certificates: Path) -> dict[str, object]:
    """Settings of an Orthanc that takes DIMSE by TLS, of whom has a certificate, alone."""
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certificates / "server.crt"),
        "DicomTlsPrivateKey": str(certificates / "server.key"),
        "DicomTlsTrustedCertificates": str(certificates / "authority.crt"),
        "DicomTlsRemoteCertificateRequired": True,
    }


@contextmanager
def started(folder: Path, **more: object) -> Iterator[Orthanc]:
    """An empty Orthanc with settings of its own. Skips the test where it is not installed."""
    plugins = [
        it
        for root in ("/usr/share", "/usr/lib")
        for it in Path(root).glob(f"orthanc/plugins/{_PLUGIN}")
    ]
    if not plugins:
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        port, dicom_port = one.getsockname()[1], two.getsockname()[1]
    folder.mkdir(exist_ok=True)
    (folder / "test.lua").write_text(_LUA % (folder, folder))
    settings = {
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "data"),
        "HttpPort": port,
        "DicomPort": dicom_port,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(plugins[0])],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "LuaScripts": [str(folder / "test.lua")],
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    it = Orthanc(f"http://localhost:{port}", f"ORTHANC@localhost:{dicom_port}", folder)
    it.start()
    try:
        yield it
    finally:
        it.stop()


@contextmanager
def dcmqrscp(folder: Path, port: int = 0) -> Iterator[str]:
    """DCMTK's own PACS, which finds by hierarchy alone, and knows SONODE at a port."""
    program = shutil.which("dcmqrscp")
    if program is None:
        pytest.skip("dcmqrscp is not installed: apt-get install dcmtk")
    (folder / "db").mkdir(parents=True)
    own = free_port()
    (folder / "dcmqrscp.cfg").write_text(
        f"""NetworkTCPPort = {own}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
sonode = (SONODE, localhost, {port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QR {folder}/db RW (200, 1024mb) ANY
AETable END
"""
    )
    with listening([program, "-c", str(folder / "dcmqrscp.cfg")], own):
        yield f"QR@localhost:{own}"


def store(node: str, image: pydicom.Dataset) -> None:
    """Store an image in a node."""
    from pynetdicom import AE

    title, _, address = node.partition("@")
    host, _, port = address.partition(":")
    caller = AE("ANY")
    caller.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = caller.associate(host, int(port), ae_title=title)
    assert association.send_c_store(image).Status == 0
    association.release()


def free_port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("", 0)) as it:
        port: int = it.getsockname()[1]
    return port


def _program() -> str:
    found = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if found is None:
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    return found
