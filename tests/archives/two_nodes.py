"""Two real nodes with the gateway before them, whose processes can be killed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil

from archives.nodes.nodes_file import NodeSettings
from archives.packing.members import file_sha256
from archives.state.journal import Desired, Journal, Release, fold
from archives.torchserve.java import claim_ports
from archives.torchserve.key_file import ask
from archives.torchserve.server_node import ServerNode
from sonode.console import UserError
from tests.archives.bad_versions import nothing
from tests.archives.rolling import Site, repacked
from tests.servers import ONE_WORKER

MODEL = "tiny"


def lasting_ports(*apis: str) -> dict[str, int]:
    """Free ports below those that connections take, so that a restart finds them free again."""
    while True:
        ports = dict(zip(apis, random.sample(range(15000, 32000), len(apis)), strict=True))
        with suppress(UserError):
            return claim_ports(ports)


class Cluster:
    """Two nodes, the gateway before them, and archives that are made when needed."""

    def __init__(self, folder: Path, archive: Path, kind: type[ServerNode]) -> None:
        self.folder, self.archive, self.kind = folder, archive, kind
        self.lines: list[str] = []
        """Of the table."""
        self.number = 1
        self.stores = [folder / name / "store" for name in "ab"]
        first = self.release("1.0")
        for store in self.stores:
            store.mkdir(parents=True)
            (store / f"{MODEL}-1.0.mar").write_bytes(first.read_bytes())
        self.ports = [lasting_ports("inference", "management", "metrics") for _ in "ab"]
        self.nodes: list[ServerNode] = []

    def __enter__(self) -> Cluster:
        with ExitStack() as if_it_fails:
            if_it_fails.callback(lambda: [node.stop() for node in self.nodes])
            self._start()
            if_it_fails.pop_all()
        return self

    def _start(self) -> None:
        for index in range(2):
            self.nodes.append(self._node(index).__enter__())
        settings = [
            NodeSettings(
                name=name,
                inference=node.inference_url,
                management=node.management_url,
                run_dir=node.run_dir,
                store=node.store,
                workers=1,
                batch_size=4,
                max_batch_delay_ms=1,
            )
            for name, node in zip("ab", self.nodes, strict=True)
        ]
        self.site = Site(self.folder / "state", settings, MODEL)
        release = Release("1.0", f"{MODEL}-1.0.mar", file_sha256(self.release("1.0")))
        (self.site.state / "archives").mkdir()
        kept = self.site.state / "archives" / release.file
        kept.write_bytes(self.release("1.0").read_bytes())
        journal = Journal(self.site.state)
        with journal.lock():
            journal.append("deployed", rollout=None, model=MODEL, stable=release, serves=[release])
        self.site.start_gateway()
        self.settle()

    def __exit__(self, *_: object) -> None:
        try:
            self.site.__exit__()
        finally:
            for node in self.nodes:
                node.stop()

    def _node(self, index: int) -> ServerNode:
        ports = self.ports[index]
        stable = f"{MODEL}-1.0.mar"
        with suppress(AttributeError):
            now = self.desired().stable
            stable = now.file if now else stable
        return self.kind(
            self.stores[index],
            {MODEL: stable},
            self.folder / "ab"[index],
            inference_port=ports["inference"],
            management_port=ports["management"],
            metrics_port=ports["metrics"],
            settings=ONE_WORKER,
        )

    def release(self, version: str, change: Callable[[Path], None] = nothing) -> Path:
        path = self.folder / f"{version}.mar"
        if not path.exists():
            self.folder.mkdir(exist_ok=True)
            repacked(self.archive, path, name=MODEL, version=version, change=change)
        return path

    def next_version(self) -> str:
        self.number += 1
        return f"{self.number}.0"

    def desired(self) -> Desired:
        return fold(self.site.entries())

    def settle(self, seconds: float = 90) -> None:
        """Wait until the gateway calls both nodes up."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(FileNotFoundError, json.JSONDecodeError):
                told = json.loads((self.site.state / "gateway" / "applied.json").read_text())
                if set(told["nodes"].values()) == {"up"}:
                    return
            time.sleep(0.1)
        raise AssertionError(told)

    # --- kills

    def kill_worker(self, version: str | None) -> None:
        """kill -9 of a worker of this version, on the first node that has one."""
        for node in self.nodes:
            with suppress(httpx.HTTPError, OSError, KeyError):
                url = f"{node.management_url}/models/{MODEL}/{version}"
                answer = ask("GET", url, node.token("management")).raise_for_status()
                pid = int(answer.json()[0]["workers"][0]["pid"])
                if pid > 0:
                    os.kill(pid, signal.SIGKILL)
                    return

    def kill_node(self, index: int) -> None:
        """kill -9 of the server and its workers, as a machine that loses power."""
        process = self.nodes[index]._process
        assert process
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def start_node(self, index: int) -> None:
        self.nodes[index].stop()
        self.nodes[index] = self._node(index).__enter__()

    def kill_supervisor(self) -> None:
        assert self.site.gateway
        self.site.gateway.kill()
        self.site.gateway.wait()
        self.site.start_gateway()

    def kill_nginx(self) -> None:
        """kill -9 of its master; the supervisor starts another one."""
        config = str(self.site.state / "gateway" / "nginx.conf")
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if config in " ".join(process.cmdline()) and "master" in process.cmdline()[0]:
                    process.kill()
