"""archives/torchserve/key_file.py: what a TorchServe may answer."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from archives.torchserve.key_file import ask


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
