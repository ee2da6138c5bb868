"""One network behind four servers on one machine in one run, and the limit of that machine.

python -m tests.benchmarks.serving [--only bare,archive,asgi,litserve,stock] [--frames FOLDER]
    [--out F]

* stock: TorchServe's own image handler around the same network in eager torch, TorchServe's
  defaults (a worker per core, no batching);
* litserve: the archive's service under LitServe, same engine, same cores, batching on;
* archive: `sonode serve` as it is shipped;
* asgi: `sonode serve --server asgi`;
* bare: decoder and engine in a loop, no server. With all cores at work all the time,
  images/s <= cores / (CPU seconds to decode an image + CPU seconds of its forward pass).

Each server first gets `WARM_S` of load, since Java compiles what it runs often. Clients run on the
same cores; what they cost is in the table. What a single client waits beyond the bare loop's
decoding and forward pass (medians, on as many cores as a worker has) is the added latency. In the
table: latencies in ms; CPU ms of the server and of the client, an image; images/s as multiples of
the others' and of the limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

from archives.asgi.node import AsgiNode
from archives.packing.loader import load_archive
from archives.torchserve.java import claim_ports
from archives.torchserve.node import TorchServeNode
from archives.torchserve.server_node import ServerNode
from archives.torchserve.worker_cores import plan
from sonode.console import say, table
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.load import Load, drive
from tests.benchmarks.throughput import make_archive

HERE = Path(__file__).parent
SERVERS = ("bare", "stock", "litserve", "archive", "asgi")
KINDS = ("PNG", "JPEG", "DICOM")
CONCURRENCY = (1, 8, 16, 32)
CORES = plan().workers * plan().threads
WARM_S = 12.0
"""Of load before a server's first measurement; a quarter of it before another kind of file."""


def bare(archive: Path, files: dict[str, list[bytes]]) -> dict[str, dict[str, float]]:
    """CPU milliseconds (means) and latency (median of wall milliseconds) of one image, by kind."""
    found = {}
    with load_archive(archive, {"threads": plan().threads}) as loaded:
        service = loaded.service
        for kind, bodies in files.items():
            walls, decode_cpu, forward_cpu = [], 0.0, 0.0
            for body in bodies:
                started, cpu = time.perf_counter(), time.process_time()
                prepared = service.preprocess({"body": body}, {})
                decoded_cpu = time.process_time()
                service.inference([prepared])
                walls.append(time.perf_counter() - started)
                decode_cpu += decoded_cpu - cpu
                forward_cpu += time.process_time() - decoded_cpu
            found[kind] = {
                "decode_cpu_ms": 1000 * decode_cpu / len(bodies),
                "forward_cpu_ms": 1000 * forward_cpu / len(bodies),
                "latency_ms": 1000 * statistics.median(walls),
                "limit_per_second": CORES * len(bodies) / (decode_cpu + forward_cpu),
            }
    return found


@contextmanager
def serving(name: str, archive: Path, folder: Path) -> Iterator[tuple[str, dict[str, str], int]]:
    """A server's URL, the headers that it wants, and its process id, while it runs."""
    if name == "litserve":
        port = claim_ports({"inference": None})["inference"]
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.litserve_server",
            str(archive),
            str(port),
        ]
        process = subprocess.Popen(command)
        try:
            until = time.monotonic() + 120
            while not _answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/predict", {}, process.pid
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(30)
            for child in psutil.wait_procs(children, timeout=5)[1]:
                child.kill()
        return
    settings = {}
    if name == "stock":
        archive = stock_archive(folder)
        settings = {"default_workers_per_model": str(CORES), "models": "{}"}
    kind = AsgiNode if name == "asgi" else TorchServeNode
    node = kind(archive.parent, {"m": archive.name}, folder / name, settings=settings)
    with node:
        await_workers(node, CORES if name == "stock" else node.plan.workers)
        assert node._process is not None
        token = {"Authorization": f"Bearer {node.token()}"}
        yield f"{node.inference_url}/predictions/m", token, node._process.pid


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
        time.sleep(0.2)
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


def cpu_seconds(pid: int) -> float:
    """CPU time of a server with all its processes."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def memory(pid: int) -> list[str]:
    """What each process of a server has for itself, and what it is: MiB."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    own = [(it.memory_full_info().uss / 2**20, it.cmdline()) for it in processes]
    return [f"{size:.0f} ({Path(words[0]).name} {words[2][:22]})" for size, words in own if words]


def measure(
    name: str, archive: Path, files: dict[str, list[bytes]], folder: Path, seconds: float
) -> list[dict[str, Any]]:
    """A line per kind and concurrency."""
    lines = []
    began = time.monotonic()
    with serving(name, archive, folder) as (url, headers, pid):
        say(f"{name:<9} all workers ready after {time.monotonic() - began:.1f} s")
        for kind, bodies in files.items():
            if name == "stock" and kind == "DICOM":
                continue  # it cannot read them
            warm = WARM_S if not lines else WARM_S / 4
            drive(url, bodies, concurrency=8, seconds=warm, headers=headers)
            for concurrency in CONCURRENCY:
                before = cpu_seconds(pid)
                load: Load = drive(
                    url, bodies, concurrency=concurrency, seconds=seconds, headers=headers
                )
                spent = 1000 * (cpu_seconds(pid) - before) / load.requests
                lines.append(
                    {"server": name, "kind": kind, "concurrency": concurrency}
                    | vars(load)
                    | {"server_cpu_ms": spent}
                )
                say(f"{name:<9} {kind:<6} {concurrency:>3} clients {load.per_second:7.1f}/s")
        say(f"{name:<9} memory of its processes, MiB: {', '.join(memory(pid))}")
    return lines


def report(lines: list[dict[str, Any]], limits: dict[str, dict[str, float]]) -> None:
    """The tables for people."""
    for kind, facts in limits.items():
        say(
            f"{kind}: decode {facts['decode_cpu_ms']:.1f} ms, forward "
            f"{facts['forward_cpu_ms']:.1f} ms of a core; "
            f"limit {CORES} cores / their sum = {facts['limit_per_second']:.1f}/s; "
            f"one after the other {facts['latency_ms']:.1f} ms (median)"
        )
    rates = {(it["server"], it["kind"], it["concurrency"]): it["per_second"] for it in lines}
    rows = []
    for it in lines:
        key = (it["kind"], it["concurrency"])
        facts = limits.get(it["kind"], {})
        limit, alone = facts.get("limit_per_second"), facts.get("latency_ms")

        def over(other: str, key: tuple[str, int] = key, own: float = it["per_second"]) -> str:
            rate = rates.get((other, *key))
            return f"{own / rate:.2f}" if rate else "-"

        rows.append(
            (
                *(it["kind"], str(it["concurrency"]), it["server"]),
                *(f"{it['per_second']:.1f}", f"{it['p50_ms']:.0f}/{it['p95_ms']:.0f}"),
                f"{it['server_cpu_ms']:.1f}+{it['client_cpu_ms']:.1f}",
                *(over("stock"), over("litserve")),
                f"{it['per_second'] / limit:.2f}" if limit else "-",
                f"{it['p50_ms'] - alone:.1f}" if alone and it["concurrency"] == 1 else "-",
            )
        )
    table(
        f"ResNet50, 256 x 256, {CORES} cores",
        (
            *("files", "clients", "server", "images/s", "p50/p95", "CPU ms"),
            *("x stock", "x LitS", "limit"),
            "added",
        ),
        sorted(rows, key=lambda row: (KINDS.index(row[0]), int(row[1]))),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SERVERS), help="some of " + ", ".join(SERVERS))
    parser.add_argument("--kinds", default=",".join(KINDS), type=str.upper)
    parser.add_argument("--frames", type=Path, default=BUSI, help="images in the layout of BUSI")
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    what, images = frames(arguments.frames)
    files = {kind: encoded(images, kind) for kind in arguments.kinds.split(",")}
    for kind, bodies in files.items():
        size = sum(map(len, bodies)) / len(bodies) / 1000
        say(f"{len(bodies)} frames of {what} as {kind}, {size:.0f} kB each")
    limits: dict[str, dict[str, float]] = {}
    lines = []
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        folder = Path(name)
        archive = make_archive(folder, "resnet50")
        for server in arguments.only.split(","):
            if server == "bare":
                limits = bare(archive, files)
            else:
                lines += measure(server, archive, files, folder, arguments.seconds)
    report(lines, limits)
    if arguments.out:
        arguments.out.write_text(json.dumps({"limits": limits, "lines": lines}, indent=2) + "\n")


if __name__ == "__main__":
    main()
