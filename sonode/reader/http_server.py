"""HTTP for the page: on loopback, for this machine's own page alone, and nothing is kept by it.

Everything lies below a key that is made at each start and printed for the user, so that neither
other users of the machine nor other pages of the browser can ask. Host and Origin are checked, too:
a name that an attacker points at 127.0.0.1 is refused whatever it knows.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError

from model_def.limits import MAX_DICOM_BYTES
from sonode.console import UserError
from sonode.reader.app import Reader, ScoreRequest
from sonode.reader.judgements.judging import Judgement, Reading
from sonode.reader.judgements.study import Stage

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
IDLE_S = 60.0  # for each read of a request's bytes
MAX_JSON = 2**16
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
PAGE = Path(__file__).with_name("page")
FILES = {path.name: path for path in PAGE.iterdir() if path.suffix in KINDS}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Refused(Exception):  # noqa: N818 - reads as what it is
    """A request that is not answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ReaderServer(ThreadingHTTPServer):
    """Serves one `Reader` until it is shut down."""

    daemon_threads = True

    def __init__(self, reader: Reader, port: int) -> None:
        """`port` 0: a free one. Raises UserError where the port is taken."""
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; give another, or 0") from None
        self.reader = reader
        self.key = secrets.token_urlsafe(18)
        self.uploads = threading.Semaphore(2)  # each may be as large as memory allows for one
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.key}/"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sonode-reader", ""
    timeout = IDLE_S
    server: ReaderServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Nothing: a path has the key."""

    def _answer(self, work: Any) -> None:
        try:
            status, kind, body = work(*self._asked())
            if isinstance(body, dict):
                kind, body = "application/json", json.dumps(body, allow_nan=False).encode()
        except Refused as error:
            status, kind, body = error.status, *_fault("refused", str(error))
            self.close_connection = True  # its body has not been read
        except OSError:  # who asked has gone
            self.close_connection = True
            return
        except Exception as error:
            logger.error("%s in the reader", type(error).__name__)  # its text could be a file's
            fault = _fault("internal", "an internal error; see where the reader runs")
            status, kind, body = 500, *fault
            self.close_connection = True
        try:
            self.send_response(status)
            for name, value in {**HEADERS, "Content-Type": kind}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:  # else the browser would ask again on this connection
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def _asked(self) -> tuple[str, dict[str, str]]:
        """Path below the key, and query. Raises Refused for all but this machine's own page."""
        host = self.headers.get("Host", "")
        if host not in self.server.hosts:
            raise Refused(421, "this address is not the reader's; use the one that it printed")
        url = urlsplit(self.path)
        key, _, path = url.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(key.encode(), self.server.key.encode()):
            raise Refused(404, "nothing is here; use the address that the reader printed")
        if self.command == "POST" and self.headers.get("Origin") != f"http://{host}":
            raise Refused(403, "the request does not come from the reader's page")
        return path, {name: values[-1] for name, values in parse_qs(url.query).items()}

    def _get(self, path: str, query: dict[str, str]) -> Any:
        reader = self.server.reader
        if file := FILES.get(path or "reader.html"):
            return 200, f"{KINDS[file.suffix]}; charset=utf-8", file.read_bytes()
        if path == "about":
            return 200, "", reader.about()
        if path == "rows":
            which, order = query.get("which", "all"), query.get("order", "manifest")
            status, body = reader.rows(which, order, _number(query.get("start", "0")))
            return status, "", body
        folder, _, rest = path.partition("/")
        image, _, frame = rest.partition("/")
        if folder == "images":
            status, body = reader.png(image, _number(frame.removesuffix(".png")))
            return status, "image/png", body["png"] if status == 200 else body
        raise Refused(404, "nothing is here")

    def _post(self, path: str, _: dict[str, str]) -> Any:
        reader = self.server.reader
        if path == "images":
            with self.server.uploads:
                status, body = reader.open_image(self._body(MAX_DICOM_BYTES))
        elif path.startswith("rows/"):
            self._body(MAX_JSON)
            status, body = reader.open_row(_number(path.removeprefix("rows/")))
        elif path in ("score", "judge", "study/before", "study/after"):
            text = self._body(MAX_JSON)
            try:
                if path == "score":
                    status, body = reader.score(ScoreRequest.model_validate_json(text))
                elif path == "judge":
                    status, body = reader.judge(Judgement.model_validate_json(text))
                else:
                    stage: Stage = "before" if path == "study/before" else "after"
                    status, body = reader.read(stage, Reading.model_validate_json(text))
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                place = ".".join(map(str, first["loc"]))
                status, body = (
                    400,
                    {"code": "malformed_request", "message": f"{place}: {first['msg']}"},
                )
        else:
            raise Refused(404, "nothing is here")
        return status, "", body

    def _body(self, limit: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "send the length of the body")
        if len(length) > 12 or int(length) > limit:
            raise Refused(413, f"the file has more than {limit // 2**20} MiB; give a smaller one")
        data = self.rfile.read(int(length))
        if len(data) != int(length):
            raise Refused(400, "the body is not whole")
        return data


def _fault(code: str, message: str) -> tuple[str, bytes]:
    return "application/json", json.dumps({"code": code, "message": message}).encode()


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(404, "nothing is here")
    return int(text)
