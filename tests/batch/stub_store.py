"""A tiny S3 store in memory that misbehaves as asked, where no real one can be brought to it."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

Answer = tuple[int, dict[str, str], bytes]


def error(status: int, code: str, message: str = "", **headers: str) -> Answer:
    """An answer as S3 gives it."""
    body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return status, headers, body.encode()


class StubStore:
    """`objects`: "bucket/key" -> bytes. `requests`: "METHOD path?query" of each so far.

    `fault` is asked first, with method, path with query, and headers; what it gives is the answer.
    `conditions`: whether If-Match and If-None-Match on PUT are honoured. `page`: keys in an answer.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fault: Callable[[str, str, dict[str, str]], Answer | None] = lambda *_: None
        self.conditions = True
        self.page = 1000
        self.address = ""
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        with self._lock:
            self.requests.append(f"{method} {path}")
            found = self.fault(method, path, headers)
            if found is not None:
                return found
            url = urlsplit(path)
            name = unquote(url.path).removeprefix("/")
            if method == "GET" and "list-type" in url.query:
                return self._listed(name.rstrip("/"), parse_qs(url.query))
            there = self.objects.get(name)
            if method == "PUT":
                return self._put(name, there, headers, body)
            if there is None:
                return error(404, "NoSuchKey")
            if headers.get("if-match", _etag(there)) != _etag(there):
                return error(412, "PreconditionFailed")
            return 200, {"ETag": _etag(there)}, there

    def _put(self, name: str, there: bytes | None, headers: dict[str, str], body: bytes) -> Answer:
        if self.conditions:
            wanted = headers.get("if-match")
            if (wanted is not None and (there is None or wanted != _etag(there))) or (
                "if-none-match" in headers and there is not None
            ):
                return error(412, "PreconditionFailed")
        self.objects[name] = body
        return 200, {"ETag": _etag(body)}, b""

    def _listed(self, bucket: str, query: dict[str, list[str]]) -> Answer:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        after = max(query.get(name, [""])[0] for name in ("start-after", "continuation-token"))
        keys = [n.removeprefix(f"{bucket}/") for n in sorted(self.objects)]
        files, folders = [], set()
        for key in (key for key in keys if key.startswith(prefix) and key > after):
            inner, slash, _ = key.removeprefix(prefix).partition("/")
            if delimiter and slash:
                folders.add(f"{prefix}{inner}/")
            else:
                files.append(key)
        more = files[self.page :]
        files = files[: self.page]
        body = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in files)
        body += "".join(
            f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>"
            for one in sorted(folders)
        )
        body += f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
        if more:
            body += f"<NextContinuationToken>{escape(files[-1])}</NextContinuationToken>"
        return 200, {}, f"<ListBucketResult>{body}</ListBucketResult>".encode()


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextmanager
def serving(store: StubStore, tls: ssl.SSLContext | None = None) -> Iterator[StubStore]:
    """Serve `store` on loopback for the length of the block, at `store.address`.

    An answer with the header Transfer-Encoding goes out in one chunk.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def respond(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            status, given, data = store.answer(self.command, self.path, headers, body)
            self.send_response_only(status)
            for name, value in given.items():
                self.send_header(name, value)
            if "Transfer-Encoding" in given:
                data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
            else:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = respond

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # clients go as they like

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    scheme = "http" if tls is None else "https"
    store.address = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
