"""archives/torchserve/key_file.py: what a TorchServe may answer."""

import gzip
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from archives.torchserve import key_file
from archives.torchserve.key_file import Keys, ask


class Bomb(BaseHTTPRequestHandler):
    body = gzip.compress(bytes(10_000_000))

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


def test_an_answer_is_not_unpacked() -> None:
    with HTTPServer(("127.0.0.1", 0), Bomb) as server:
        threading.Thread(target=server.handle_request).start()
        answer = ask("GET", f"http://127.0.0.1:{server.server_port}/models/m/all", "token")
    assert answer.content == Bomb.body


def test_where_clocks_differ_a_token_is_not_voided_at_each_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node's clock is two hours behind: each token that it makes seems to have expired."""
    renewals = 0
    file = tmp_path / "key_file.json"

    def renew(method: str, url: str, token: str) -> httpx.Response:
        nonlocal renewals
        renewals += 1
        behind = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        keys = {"inference": {"key": f"k{renewals}", "expiration time": behind}}
        file.write_text(json.dumps({"API": {"key": "x"}} | keys))
        return httpx.Response(200, request=httpx.Request(method, url))

    renew("GET", "http://node", "")
    monkeypatch.setattr(key_file, "ask", renew)
    keys = Keys(file, "http://node")
    assert [keys.token() for _ in range(3)] == ["k2"] * 3
    monkeypatch.setattr(key_file, "RENEW_PAUSE_S", -1.0)
    keys = Keys(file, "http://node")
    assert [keys.token() for _ in range(2)] == ["k3", "k4"]
