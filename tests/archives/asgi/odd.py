"""A model without a network that dies, hangs or raises at a word, and how a test talks to it."""

import socket

import httpx

from archives.asgi.node import AsgiNode
from archives.torchserve.java import HOST
from tests.archives.serving.test_serve import bearer
from tests.loopback import LOOPBACK

# Answers its version and the batch's size, but to some words it does what it says.
ODD = """
import os, time
from pathlib import Path

class Odd:
    def initialize(self, context):
        self.version = context.manifest["model"]["modelVersion"]
        if Path("../broken").exists():
            raise RuntimeError("it is broken")

    def handle(self, rows, context):
        words = [row["body"] for row in rows]
        if b"die" in words:
            os._exit(1)
        if b"hang" in words:
            time.sleep(1000)
        if b"raise" in words:
            raise ValueError("no answer")
        if b"slow" in words:
            Path("../begun").touch()
            time.sleep(1)
        return [{"version": self.version, "batch": len(rows)} for row in rows]
"""
CONFIG = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nresponseTimeout: 3\n"


def post(
    node: AsgiNode, content: bytes = b"x", path: str = "odd", **headers: str
) -> httpx.Response:
    url = f"{node.inference_url}/predictions/{path}"
    given = bearer(node.token()) | headers
    return LOOPBACK.post(url, content=content, headers=given, timeout=60)


def manage(node: AsgiNode, method: str, path: str, **params: str) -> httpx.Response:
    given = bearer(node.token("management"))
    url = node.management_url + path
    return LOOPBACK.request(method, url, params=params, headers=given, timeout=60)


def pid(node: AsgiNode) -> int:
    return int(manage(node, "GET", "/models/odd").json()[0]["workers"][0]["pid"])


def raw(node: AsgiNode, data: bytes) -> socket.socket:
    connection = socket.create_connection((HOST, int(node.inference_url.rpartition(":")[2])), 10)
    connection.sendall(data)
    return connection
