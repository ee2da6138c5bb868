"""A proxy before the S3 server that answers some requests as a store in trouble does."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
INTERNAL = b"<Error><Code>InternalError</Code><Message>We erred.</Message></Error>"


class FaultyProxy:
    """Passes every request on, but for those that `faults` names.

    `faults`: for each request in turn one of None, "500", "503" (throttled), "slow" (0.3 s),
    "cut" (half of the body, then nothing), "flip" (a bit of the body is another), "reset" (no
    answer at all), "lost" (passed on, and the answer thrown away), "late" (passed on, and answered
    6 s later).
    """

    def __init__(self, endpoint: str, faults: Iterator[str | None]) -> None:
        self.target = urlsplit(endpoint)
        self.faults = faults
        self.lock = threading.Lock()
        self.seen: dict[str | None, int] = {}

    def next_fault(self) -> str | None:
        with self.lock:
            fault = next(self.faults)
            self.seen[fault] = self.seen.get(fault, 0) + 1
            return fault


def cycle(*faults: str | None) -> Iterator[str | None]:
    return itertools.cycle(faults)


@contextmanager
def started(proxy: FaultyProxy) -> Iterator[str]:
    """Give the proxy's address for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def pass_on(self) -> None:
            fault = proxy.next_fault()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if fault == "reset":
                self.close_connection = True
                return
            if fault in ("500", "503"):
                self.answer(int(fault), [], SLOW_DOWN if fault == "503" else INTERNAL)
                return
            if fault == "slow":
                time.sleep(0.3)
            connection = http.client.HTTPConnection(proxy.target.netloc, timeout=30)
            try:
                # The Host that was signed goes along.
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            if fault == "late":
                time.sleep(6)
            if fault == "lost":
                self.close_connection = True
                return
            headers = [
                item
                for item in answer.getheaders()
                if item[0].lower() not in ("transfer-encoding", "connection", "content-length")
            ]
            length = int(answer.getheader("Content-Length") or len(data))
            if fault == "flip" and data:
                data = bytes([data[0] ^ 64]) + data[1:]
            self.answer(answer.status, headers, data, length, cut=fault == "cut")

        def answer(
            self,
            status: int,
            headers: list[tuple[str, str]],
            data: bytes,
            length: int | None = None,
            *,
            cut: bool = False,
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = pass_on

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
