"""DICOMweb services that answer a list of UIDs in another way than Orthanc does."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")

from sonode.console import UserError
from tests.batch.dicom.pushing.test_push import IMAGES, NONE, ledgers, pushed_to

pytestmark = pytest.mark.live


class Pacs:
    """It has the images; a list is answered by a status, or by the newest three of the study."""

    def __init__(self, to_a_list: int) -> None:
        self.to_a_list = to_a_list
        self.has = {it.SOPInstanceUID: it for it in IMAGES}
        self.stored: list[str] = []

    def find(self, level: str, study: str, uid: str) -> tuple[int, list[pydicom.Dataset]]:
        its = [it for it in self.has.values() if study in ("", it.StudyInstanceUID)]
        if level == "studies":
            return 200, [it for it in its if it.StudyInstanceUID == uid][:1]
        if "," not in uid:
            return 200, [it for it in its if it.SOPInstanceUID == uid]
        return self.to_a_list, its[-3:]

    def store(self, body: bytes) -> None:
        made = pydicom.dcmread(io.BytesIO(body.partition(b"\r\n\r\n")[2]))
        self.has[made.SOPInstanceUID] = made
        self.stored.append(made.SOPInstanceUID)


@contextmanager
def started(pacs: Pacs) -> Iterator[str]:
    """Its address for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            steps, asked = url.path.split("/"), parse_qs(url.query)
            study = steps[2] if len(steps) > 2 else ""
            key = "StudyInstanceUID" if steps[-1] == "studies" else "SOPInstanceUID"
            status, found = pacs.find(steps[-1], study, asked[key][0])
            keys = ("StudyInstanceUID", "SOPInstanceUID", "PatientID")
            self.answer(
                status,
                [{f"{it[k].tag:08X}": it[k].to_json_dict(None, 0) for k in keys} for it in found],
            )

        def do_POST(self) -> None:
            pacs.store(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(200, {})

        def answer(self, status: int, said: object) -> None:
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("to_a_list", [400, 414, 501, 200])
def test_one_that_refuses_lists_or_ignores_them_gets_each_object_once(
    out: Path, to_a_list: int
) -> None:
    pacs = Pacs(to_a_list)
    with started(pacs) as address:
        assert pushed_to(str(out), address).by_status == {**NONE, "accepted": 6}
        for ledger in ledgers(out):
            ledger.unlink()
        assert pushed_to(str(out), address).by_status == {**NONE, "present": 6}
    assert len(pacs.stored) == len(set(pacs.stored)) == 6


def test_one_that_lets_nobody_in_ends_the_push(out: Path) -> None:
    class Closed(Pacs):
        def find(self, level: str, study: str, uid: str) -> tuple[int, list[pydicom.Dataset]]:
            status, found = super().find(level, study, uid)
            return (status if level == "studies" else 403), found

    with started(Closed(200)) as address, pytest.raises(UserError, match="HTTP 403"):
        pushed_to(str(out), address)
    assert ledgers(out) == []
