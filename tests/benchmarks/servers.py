"""The servers that are measured, each around the same network: started, asked, and put to sleep."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import torch

from archives.asgi.node import AsgiNode
from archives.torchserve.java import claim_ports
from archives.torchserve.node import TorchServeNode
from archives.torchserve.server_node import ServerNode
from archives.torchserve.worker_plan import plan

HERE = Path(__file__).parent
CORES = plan().workers * plan().threads
# Of one worker each, in milliseconds; both servers have it.
LOAD_TIME = re.compile(r"^WorkerLoadTime\{.*\} ([0-9.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """A running one."""

    name: str
    url: str
    headers: dict[str, str]
    pid: int
    ready_s: float
    """From its start until all workers are ready."""
    loading_s: float | None
    """Of that, what its slowest worker takes to start and load its model, by its own account."""

    def processes(self) -> list[psutil.Process]:
        """All of it."""
        return [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]

    def cpu_by_process(self) -> list[float]:
        """CPU seconds of each of its processes; the first is that which answers."""
        return [sum(it.cpu_times()[:2]) for it in self.processes()]

    def cpu_seconds(self) -> float:
        """CPU time of all its processes."""
        return sum(self.cpu_by_process())

    def memory(self) -> list[tuple[float, str]]:
        """What each process has for itself, in MiB, and what it is."""
        own = [(it.memory_full_info().uss / 2**20, it.cmdline()) for it in self.processes()]
        return [(size, f"{Path(words[0]).name} {words[2][:22]}") for size, words in own if words]

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """It does not run: what an idle server does costs the others nothing."""
        processes = self.processes()
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()


@contextmanager
def serving(name: str, archive: Path, folder: Path) -> Iterator[Server]:
    """A server while it runs."""
    began = time.monotonic()
    if name == "litserve":
        port = claim_ports({"inference": None})["inference"]
        command = [sys.executable, "-m", "tests.benchmarks.litserve_server"]
        process = subprocess.Popen([*command, str(archive), str(port)])
        try:
            until = began + 120
            while not _answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.05)
            ready_s = time.monotonic() - began
            url = f"http://127.0.0.1:{port}/predict"
            yield Server(name, url, {}, process.pid, ready_s, None)
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(30)
            for child in psutil.wait_procs(children, timeout=5)[1]:
                child.kill()
        return
    settings = {"token_expiration_min": "1440"}
    if name == "stock":
        archive = stock_archive(folder)
        settings |= {"default_workers_per_model": str(CORES), "models": "{}"}
        began = time.monotonic()
    kind = AsgiNode if name == "asgi" else TorchServeNode
    with kind(archive.parent, {"m": archive.name}, folder / name, settings=settings) as node:
        await_workers(node, CORES if name == "stock" else node.plan.workers)
        ready_s = time.monotonic() - began
        loads = LOAD_TIME.findall(httpx.get(node.metrics_url, trust_env=False).text)
        loading_s = max(map(float, loads)) / 1000 if loads else None
        assert node._process is not None
        token = {"Authorization": f"Bearer {node.token()}"}
        url = f"{node.inference_url}/predictions/m"
        yield Server(name, url, token, node._process.pid, ready_s, loading_s)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def await_workers(node: ServerNode, count: int) -> None:
    """The node is ready with its first worker; a measurement waits for all."""
    token = {"Authorization": f"Bearer {node.token('management')}"}
    until = time.monotonic() + 120
    while time.monotonic() < until:
        answer = httpx.get(f"{node.management_url}/models/m", headers=token, trust_env=False)
        if sum(worker["status"] == "READY" for worker in answer.json()[0]["workers"]) == count:
            return
        time.sleep(0.05)
    raise RuntimeError(f"not all of {count} workers are ready")


def stock_archive(folder: Path) -> Path:
    """TorchServe's stock handler with the network's shape; what the weights are costs nothing."""
    from tests.benchmarks.stock_model import ResNet50

    store = folder / "stock-store"
    store.mkdir()
    (folder / "archiver").mkdir()
    torch.save(ResNet50().state_dict(), folder / "stock.pt")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "model_archiver.model_packaging",
        "--model-name",
        "stock",
    ]
    command += ["--version", "1.0", "--model-file", str(HERE / "stock_model.py")]
    command += ["--serialized-file", str(folder / "stock.pt"), "--export-path", str(store)]
    command += ["--handler", str(HERE / "stock_handler.py")]
    subprocess.run(command, check=True, env={"TMPDIR": str(folder / "archiver")})
    return store / "stock.mar"
