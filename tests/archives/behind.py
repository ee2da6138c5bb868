"""A gateway before stand-ins or real nodes, and clients that count what they get."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.supervisor import Supervisor
from archives.nodes.nodes_file import NodeSettings
from archives.state.journal import Journal, Release
from archives.state.tokens_and_keys import add_client
from archives.torchserve.java import claim_ports

V1 = Release("1.0", "m-1.0.mar", "0" * 64)
V2 = Release("2.0", "m-2.0.mar", "0" * 64)


@dataclass
class Behind:
    """A running gateway, and what one does with it."""

    state: Path
    port: int
    token: str
    supervisor: Supervisor | None = None
    client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=60))

    def ask(
        self, study: str | None = None, *, path: str = "/predictions/m", **options: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        if study is not None:
            headers["X-Study-Id"] = study
        options.setdefault("content", b"pixels")
        url = f"http://127.0.0.1:{self.port}{path}"
        return self.client.post(url, headers=headers, **options)

    def journal(self, rollout: str | None = None, **facts: Any) -> int:
        """Write an entry, wait until the gateway has applied it; its number."""
        journal = Journal(self.state)
        with journal.lock():
            seq = journal.append("changed", rollout=rollout, **facts).seq
        self.wait(lambda: self.applied().get("seq") == seq)
        return seq

    def applied(self) -> dict[str, Any]:
        path = self.state / "gateway" / "applied.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def lines(self, log: str) -> list[dict[str, Any]]:
        """All lines of a log, those of rotated files first."""
        found = sorted((self.state / "gateway").glob(f"{log}-*.jsonl"))
        now = self.state / "gateway" / f"{log}.jsonl"
        found += [now] if now.exists() else []  # nginx makes it anew a moment after a rotation
        return [json.loads(line) for path in found for line in path.read_text().splitlines()]

    def of(self, answer: httpx.Response, log: str, count: int = 1) -> list[dict[str, Any]]:
        """The lines of one request, when all of them are there."""
        mine = answer.headers["X-Request-Id"]
        self.wait(lambda: len([it for it in self.lines(log) if it["id"] == mine]) >= count)
        return [it for it in self.lines(log) if it["id"] == mine]

    @staticmethod
    def wait(condition: Callable[[], object], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "it did not come about"
            time.sleep(0.02)


def start_journal(state: Path, **facts: Any) -> None:
    journal = Journal(state)
    with journal.lock():
        facts = {"model": "m", "stable": V1, "serves": [V1], "salt": "s"} | facts
        journal.append("deployed", rollout=None, **facts)


@contextmanager
def behind(
    nodes: Sequence[NodeSettings],
    state: Path,
    *,
    rate: int = 10_000,
    at_once: int = 64,
    **facts: Any,
) -> Iterator[Behind]:
    """A gateway with its supervisor in this process; `facts` of the journal's first entry."""
    token = add_client(state, "clinic")
    start_journal(state, **facts)
    port = claim_ports({"gateway": None})["gateway"]
    settings = GatewaySettings(port=port, rate=rate, at_once=at_once)
    with Supervisor(nodes, state, settings) as supervisor:
        running = Behind(state, port, token, supervisor)
        running.wait(lambda: running.applied().get("seq") == 1)
        with running.client:
            yield running


@contextmanager
def load(gateway: Behind, *, clients: int = 4) -> Iterator[Counter[str]]:
    """Clients that ask one request after the other, each on a connection that it keeps.

    What they got, counted when the block ends: statuses, and `lost` where no answer came.
    """
    told: Counter[str] = Counter()
    ended = threading.Event()
    lock = threading.Lock()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
        headers = {"Authorization": f"Bearer {gateway.token}"}
        turn = 0
        while not ended.is_set():
            turn += 1
            try:
                study = {"X-Study-Id": f"{number}-{turn}"}
                connection.request("POST", "/predictions/m", b"pixels", headers | study)
                answer = connection.getresponse()
                answer.read()
                result = str(answer.status)
            except (OSError, http.client.HTTPException):
                connection.close()
                result = "lost"
            with lock:
                told[result] += 1
        connection.close()

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        gateway.wait(lambda: sum(told.values()) >= clients)
        yield told
    finally:
        ended.set()
        for thread in threads:
            thread.join()
