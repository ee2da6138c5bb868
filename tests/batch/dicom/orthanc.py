"""A real PACS: Orthanc of Debian (packages orthanc and orthanc-dicomweb) on loopback."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

USER, PASSWORD = "sonode", "a word of the test"
_PLUGIN = "libOrthancDicomWeb.so"


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """An empty Orthanc; give its address. Skips the test where it is not installed."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    plugins = [
        it
        for root in ("/usr/share", "/usr/lib")
        for it in Path(root).glob(f"orthanc/plugins/{_PLUGIN}")
    ]
    if program is None or not plugins:
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.mkdir()
    settings = {
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "data"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(plugins[0])],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, process, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait(60)


def instances(address: str) -> list[bytes]:
    """All files that an Orthanc has."""
    return [
        _get(f"{address}/instances/{it}/file").content for it in _get(f"{address}/instances").json()
    ]


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            _get(f"{address}/system")
        except requests.ConnectionError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(log.read_text(errors="replace")[-2000:])


def _get(url: str) -> requests.Response:
    answer = requests.get(url, auth=(USER, PASSWORD), timeout=60)
    answer.raise_for_status()
    return answer
