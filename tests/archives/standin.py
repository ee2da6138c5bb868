"""A stand-in for TorchServe, to make nodes slow, refuse, break or lie at will: a fault injector.

It speaks what the gateway asks of TorchServe (predictions, /ping, /models, tokens in a key file,
which a renewal voids at once) and answers like the handler, with its X-Sonode-* headers.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from archives.nodes.nodes_file import NodeSettings
from archives.packing.members import file_sha256


@dataclass
class Call:
    """A prediction that arrived."""

    version: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class StandIn:
    """One node. `versions` are registered; `behave` may answer a prediction in its own way."""

    folder: Path
    name: str
    versions: dict[str, int] = field(default_factory=lambda: {"1.0": 1})
    default: str = "1.0"
    behave: Callable[[StandIn, Handler, Call], bool] | None = None
    """Returns whether it has answered."""
    delay_s: dict[str, float] = field(default_factory=dict)
    """By version."""
    calls: list[Call] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Of management: METHOD path."""
    files: dict[str, str] = field(default_factory=dict)
    """By version: the archive that it was registered from."""
    digests: dict[str, str] = field(default_factory=dict)
    """By version: SHA-256 of the archive that its workers have loaded."""
    loads: bool = True
    """Whether workers of what is registered start."""
    refuses: tuple[str, ...] = ()
    """Methods of management that fail."""
    speaks_open_inference: bool = True
    live: int = 200
    """What it answers on /v2/health/live where it speaks that protocol."""
    port: int = 0

    def __post_init__(self) -> None:
        self.run_dir = self.folder / self.name
        self.store = self.run_dir / "store"
        self.store.mkdir(parents=True, exist_ok=True)
        self._new_keys()

    def _new_keys(self) -> None:
        """As at each start of TorchServe."""
        self.api_key = secrets.token_urlsafe(6)
        self.renew("inference", "management")

    def renew(self, *kinds: str, lifetime: timedelta = timedelta(hours=1)) -> None:
        """New tokens, the old ones void before the key file says so."""
        tokens = getattr(self, "tokens", {})
        self.tokens = tokens | {kind: secrets.token_urlsafe(6) for kind in kinds}
        self.expiry = (datetime.now(UTC) + lifetime).isoformat()
        keys = {"API": {"key": self.api_key}} | {
            kind: {"key": token, "expiration time": self.expiry}
            for kind, token in self.tokens.items()
        }
        self.run_dir.mkdir(exist_ok=True)
        part = self.run_dir / "key_file.part"
        part.write_text(json.dumps(keys))
        part.replace(self.run_dir / "key_file.json")

    def settings(self) -> NodeSettings:
        base = f"http://127.0.0.1:{self.port}"
        return NodeSettings.model_construct(
            name=self.name,
            inference=base,
            management=base,
            run_dir=self.run_dir,
            store=self.store,
            workers=1,
            batch_size=1,
            max_batch_delay_ms=1,
        )

    def start(self, *, anew: bool = False) -> None:
        """Answer; `anew`: as another process, with other keys."""
        if anew:
            self._new_keys()
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.server.node = self  # type: ignore[attr-defined]
        self.port = self.server.server_address[1]
        self.connections: set[socket.socket] = set()
        threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True).start()

    def stop(self) -> None:
        """As a killed process: connections are closed, also those under way."""
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def behaving(self, behave: Callable[[StandIn, Handler, Call], bool]) -> Iterator[None]:
        self.behave = behave
        try:
            yield
        finally:
            self.behave = None


class Server(ThreadingHTTPServer):
    request_queue_size = 256  # as many as may come at once


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    wbufsize = -1  # one packet an answer: two would wait for the other end's delayed ACK

    @property
    def node(self) -> StandIn:
        return self.server.node  # type: ignore[attr-defined, no-any-return]

    def setup(self) -> None:
        super().setup()
        self.node.connections.add(self.connection)

    def finish(self) -> None:
        self.node.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        path = self.path.partition("?")[0]
        kind = "management" if path.startswith("/models") else "inference"
        wanted = self.node.api_key if path == "/token" else self.node.tokens[kind]
        if bearer != wanted:
            self.answer(400, {"code": 400, "type": "InvalidKeyException", "message": "Token"})
        elif path == "/token":
            self.node.renew("inference" if "inference" in self.path else "management")
            self.answer(200, {})
        elif path == "/ping":
            self.answer(200, {"status": "Healthy"})
        elif path.startswith("/models"):
            self.manage(path)
        elif path.startswith("/v2/") and not self.node.speaks_open_inference:
            self.answer(404, {"code": 404, "type": "ResourceNotFoundException"})
        elif path == "/v2/health/live":
            self.answer(self.node.live, {"live": True})
        else:
            self.predict(path, body)

    def predict(self, path: str, body: bytes) -> None:
        names = path.split("/")  # /predictions/m/VERSION, /v2/models/m/versions/VERSION/infer
        version = names[5] if names[1] == "v2" else names[3]
        headers = {key.lower(): value for key, value in self.headers.items()}
        call = Call(version, path, headers, body)
        self.node.calls.append(call)
        if not self.node.versions.get(version):
            self.answer(404, {"code": 404, "type": "ModelVersionNotFoundException"})
            return
        time.sleep(self.node.delay_s.get(version, 0.0))
        if self.node.behave and self.node.behave(self.node, self, call):
            return
        self.score(version)

    def score(self, version: str) -> None:
        told = {"X-Sonode-Code": "ok", "X-Sonode-Scores": "malignancy=0.250000"}
        told |= {"X-Sonode-Labels": "malignancy=benign", "X-Request-Id": "its-own"}
        self.answer(200, {"node": self.node.name, "version": version}, told)

    def manage(self, path: str) -> None:
        node, (_, _, *names) = self.node, path.split("/")
        node.asked.append(f"{self.command} {path}")
        described: list[dict[str, Any]] = [
            {
                "modelVersion": version,
                "modelUrl": node.files.get(version, f"m-{version}.mar"),
                "workers": [{"status": "READY"}] * workers,
            }
            for version, workers in node.versions.items()
        ]
        if self.command in node.refuses:
            self.answer(500, {"code": 500, "type": "InternalServerException"})
        elif self.command == "POST":
            version = re.search(r"url=m-([\d.]+)\.mar", self.path)[1]  # type: ignore[index]
            if version in node.versions:
                self.answer(409, {})
                return
            node.versions[version] = int(node.loads)
            node.files[version] = f"m-{version}.mar"
            if (archive := node.store / node.files[version]).exists():
                node.digests[version] = file_sha256(archive)
            self.answer(200 if node.loads else 500, {})
        elif self.command == "PUT":
            node.default = names[1]
            self.answer(200, {})
        elif self.command == "DELETE" and len(node.versions) > 1 and names[1] == node.default:
            self.answer(403, {"code": 403, "type": "InvalidModelVersionException"})
        elif self.command == "DELETE":
            node.versions.pop(names[1], None)
            self.answer(200, {})
        elif not described:
            self.answer(404, {})
        elif names[1:] == ["all"]:
            self.answer(200, described)
        else:
            self.answer(200, [it for it in described if it["modelVersion"] == node.default])

    do_GET = do_POST = do_PUT = do_DELETE = handle_any
