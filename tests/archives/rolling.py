"""A site to roll versions at: a gateway, a load that never stops, and what clients met with."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import yaml

from archives.gateway.logs import LogRow, LogTail
from archives.nodes.nodes_file import NodeSettings
from archives.rollout.nodes import applied
from archives.state.journal import Entry, Journal
from archives.state.tokens_and_keys import add_client
from archives.torchserve.java import claim_ports
from handlers.integrity import write_canonical_zip
from tests.loopback import LOOPBACK

QUICK = {
    "canary": [20, 100],
    "min_requests": 30,
    "min_step_s": 1,
    "study_s": 0.5,
    "step_timeout_s": 60,
    "keep_warm_s": 1,
}
"""A policy for minutes, not weeks; limits are the product's own."""


CLIENT_TIMEOUT_S = 150.0  # longer than two tries of the gateway
JSON_SIZE = "Inference-Header-Content-Length"
TAKEN_S = 1.0  # by then the gateway has a new step's configuration


@dataclass(frozen=True)
class Answer:
    """What a client met with; `status` 0: nothing, the connection broke or time was up."""

    t: float
    study: str
    status: int
    version: str
    ms: float
    id: str
    """By which the gateway's logs have it."""
    what: str
    """What went wrong, where nothing came."""


def open_inference(image: bytes, *, binary: bool) -> tuple[bytes, dict[str, str]]:
    """A request for scores and heat maps, as tritonclient makes it: its body and headers."""
    tensor: dict[str, object] = {"name": "image", "shape": [1], "datatype": "BYTES"}
    element = struct.pack("<I", len(image)) + image
    if binary:
        tensor["parameters"] = {"binary_data_size": len(element)}
    else:
        tensor["data"] = [base64.b64encode(image).decode()]
    parameters = {"explain": "gradcam", "binary_data_output": binary}
    text = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    if not binary:
        return text, {"Content-Type": "application/json"}
    told = {"Content-Type": "application/octet-stream", JSON_SIZE: str(len(text))}
    return text + element, told


def check_outputs(body: bytes, json_size: str | None) -> None:
    """Raise ValueError where scores, heat maps or bytes of an answer are missing."""
    size = int(json_size or len(body))
    outputs = json.loads(body[:size])["outputs"]
    names = {it["name"].rpartition(".")[2] for it in outputs}
    sizes = [it.get("parameters", {}).get("binary_data_size", 0) for it in outputs]
    if not names >= {"answer", "probability", "heatmap"} or size + sum(sizes) != len(body):
        raise ValueError("outputs are missing")


class Load:
    """Clients that send images of studies, several of each, at a steady pace, until the block ends.

    `images` are bodies in turn; `rate` is in requests a second, of all clients together, which give
    up after `patience_s`. `both_protocols`: each second one is of the Open Inference Protocol.
    """

    def __init__(
        self,
        url: str,
        token: str,
        images: Sequence[bytes],
        *,
        clients: int = 4,
        rate: float = 40,
        patience_s: float = CLIENT_TIMEOUT_S,
        both_protocols: bool = False,
    ) -> None:
        self.url, self.token, self.images = httpx.URL(url), token, images
        self.answers: list[Answer] = []
        self._pause = clients / rate
        self._patience_s = patience_s
        self._both_protocols = both_protocols
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=[number]) for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for it in self.answers:
            if it.status != 200:
                print(f"{it.version} {it.status} {it.what} after {it.ms:.0f} ms")

    def _client(self, number: int) -> None:
        chance = random.Random(number)
        connection: http.client.HTTPConnection | None = None
        last = 0.0
        turn, due = 0, time.monotonic() + chance.random() * self._pause
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause, time.monotonic())
            study = f"study-{number}-{turn // 2}"
            began = time.time()
            status, version, id_, what = 0, "", "", ""
            try:
                # As clients do: one that lay idle may be closed by the other end at any time.
                if connection is not None and began - last > 1:
                    connection.close()
                    connection = None
                if connection is None:
                    connection = http.client.HTTPConnection(
                        self.url.host, self.url.port, timeout=self._patience_s
                    )
                body = self.images[(turn * 7 + number) % len(self.images)]
                path, headers = self.url.path, {"Content-Type": "application/octet-stream"}
                of_v2 = self._both_protocols and turn % 2 == 1
                if of_v2:
                    path = f"/v2/models/{path.rpartition('/')[2]}/infer"
                    body, headers = open_inference(body, binary=turn % 4 == 1)
                headers |= {"Authorization": f"Bearer {self.token}", "X-Study-Id": study}
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                said, told = answer.read(), answer.headers
                if of_v2 and answer.status == 200:
                    check_outputs(said, told.get(JSON_SIZE))
                status, version = answer.status, told.get("X-Model-Version", "")
                id_ = told.get("X-Request-Id", "")
            except (OSError, ValueError, http.client.HTTPException) as error:
                what = repr(error)
                if connection is not None:
                    connection.close()
                connection = None
            last = time.time()
            ms = 1000 * (last - began)
            self.answers.append(Answer(began, study, status, version, ms, id_, what))
            turn += 1
        if connection is not None:
            connection.close()

    def statuses(self) -> Counter[int]:
        """How many answers have each status."""
        return Counter(answer.status for answer in list(self.answers))

    def versions(self, since: float = 0.0) -> Counter[str]:
        """How many answers are of each version."""
        return Counter(answer.version for answer in list(self.answers) if answer.t >= since)


class Site:
    """A state folder with its nodes.yaml, and `sonode gateway` as a process of its own."""

    def __init__(self, state: Path, nodes: Sequence[NodeSettings], model: str) -> None:
        self.state = state
        self.nodes_file = state / "nodes.yaml"
        state.mkdir(parents=True, exist_ok=True)
        dumped = [node.model_dump(mode="json", exclude_none=True) for node in nodes]
        self.nodes_file.write_text(yaml.safe_dump({"nodes": dumped}))
        self.port = claim_ports({"gateway": None})["gateway"]
        self.token = add_client(state, "load")
        self.url = f"http://127.0.0.1:{self.port}/predictions/{model}"
        self.gateway: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Site:
        self.start_gateway()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.gateway
        self.gateway.terminate()
        try:
            self.gateway.wait(30)
        finally:
            self.gateway.kill()

    def start_gateway(self) -> None:
        """Also again, after a kill."""
        command = ["gateway", "--nodes", str(self.nodes_file), "--state", str(self.state)]
        command += ["--port", str(self.port), "--rate", "10000"]
        path = self.state / "gateway.log"
        with path.open("ab") as log:
            before = log.tell()
            self.gateway = sonode_process(command, log)
        health = f"http://127.0.0.1:{self.port}/health"
        until = time.monotonic() + 180
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                LOOPBACK.get(health)
                # An nginx that went on answers before the supervisor has it: stopped by then, that
                # one leaves it as it was.
                if b"Ctrl-C to stop" in path.read_bytes()[before:]:
                    return
            time.sleep(0.05)
        self.__exit__()
        raise AssertionError(path.read_text())

    def start_words(self, archive: Path, policy: dict[str, object]) -> list[str]:
        """Of `sonode rollout start`."""
        file = self.state / "policy.yaml"
        file.write_text(yaml.safe_dump(policy))
        words = ["rollout", "start", str(archive), "--nodes", str(self.nodes_file)]
        return [*words, "--policy", str(file), "--state", str(self.state)]

    def entries(self) -> list[Entry]:
        return Journal(self.state).entries()

    def wait_for(self, event: str, seconds: float = 60, *, taken: bool = False) -> Entry:
        """The last entry of that event or step, once it is there (and the gateway has taken it)."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for entry in reversed(self.entries()):
                fits = event in (entry.event, entry.facts.get("step"))
                if fits and (not taken or applied(self.state) >= entry.seq):
                    return entry
            time.sleep(0.05)
        raise AssertionError(f"no {event}: {[entry.event for entry in self.entries()]}")


def repacked(
    archive: Path,
    target: Path,
    *,
    name: str,
    version: str,
    change: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """The archive with another name and version, and with what `change` does to its files."""
    with TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        manifest = Path(folder) / "MAR-INF" / "MANIFEST.json"
        told = json.loads(manifest.read_text())
        told["model"] |= {"modelName": name, "modelVersion": version}
        manifest.write_text(json.dumps(told))
        change(Path(folder))
        with target.open("wb") as file:
            write_canonical_zip(Path(folder), file)
    return target


def sonode_process(words: Sequence[str], log: object) -> subprocess.Popen[bytes]:
    """A command of sonode in the background."""
    command = [sys.executable, "-P", "-m", "sonode", *words]
    return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)  # type: ignore[call-overload]


def miscounted(site: Site, answers: Sequence[Answer]) -> list[str]:
    """Answers of a version that the gateway's logs do not have once, as they were.

    Guards judge by these rows; scores are in the row of the try that was answered.
    """
    logs: list[dict[str, list[LogRow]]] = []
    for name in ("requests", "attempts"):
        rows = defaultdict(list)
        for row in LogTail(site.state / "gateway" / f"{name}.jsonl").rows():
            rows[row["id"]].append(row)
        logs.append(rows)
    found = []
    for it in answers:
        if not it.version:
            continue
        requests, attempts = (log[it.id] for log in logs)
        told = [(row["version"], row["status"]) for row in requests]
        tried = [row for row in attempts if row["arm"] in ("stable", "candidate")]
        scored = [bool(row["scores"]) for row in tried if row["status"] == 200]
        right = all(row["version"] == it.version for row in tried) and bool(tried)
        if told != [(it.version, it.status)] or not right or scored != [True] * (it.status == 200):
            found.append(f"{it} is counted as {requests}, {attempts}")
    return found


def split_by_step(
    site: Site, load: Load, entries: Sequence[Entry], new: str
) -> dict[str, tuple[int, int]]:
    """Studies on the new version, and all, of each canary step; asserts that none changed sides.

    A study counts with its answers that began and ended in the step, once it was taken.
    """
    found = {}
    steps = [entry for entry in entries if "step" in entry.facts]
    for entry, following in pairwise(steps):
        if entry.event != "canary":
            continue
        begin = entry.time + TAKEN_S
        versions = defaultdict(set)
        for answer in list(load.answers):
            inside = begin <= answer.t and answer.t + answer.ms / 1000 < following.time
            if inside and answer.status == 200:
                versions[answer.study].add(answer.version)
        assert all(len(seen) == 1 for seen in versions.values()), entry.facts["step"]
        share = sum(new in seen for seen in versions.values())
        found[str(entry.facts["step"])] = (share, len(versions))
    return found
