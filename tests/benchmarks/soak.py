"""20,000 mixed requests to one archive behind TorchServe: is its memory flat?

python -m tests.benchmarks.soak [--requests N]

Good rows of several sizes and forms, bad ones, explained ones, 16 at a time. The resident memory
(RSS) of all workers together and of Java is sampled; over the last half of the requests the slope
of a line through the samples must stay below a bound, else the exit code is 1. A worker that is
started anew ends it.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from archives.torchserve.node import TorchServeNode
from sonode.console import progress
from tests.benchmarks.machine import table
from tests.benchmarks.servers import await_workers
from tests.benchmarks.throughput import make_archive
from tests.conftest import encode
from tests.processes import processes_about

CONCURRENCY = 16
EVERY = 250  # requests from sample to sample
# MiB per 1,000 requests: a row's crop (64 KiB) that is kept would show as 60, a log line as 0.3.
# Java's heap grows up to its own limit before it collects: its bound is that of a slow leak only.
BOUND = {"workers": 1.0, "java": 8.0}
MARK = {"workers": "model_service_worker", "java": "ModelServer"}  # on their command lines


def requests(rng: np.random.Generator) -> list[dict[str, Any]]:
    """What is sent, over and over: keyword arguments of `httpx.Client.post`."""
    frames = [
        rng.integers(0, 256, (int(h), int(w)), dtype=np.uint8)
        for h, w in rng.integers(200, 700, (12, 2))
    ]
    png, jpeg = [encode(f) for f in frames], [encode(f, "JPEG") for f in frames]
    sent: list[dict[str, Any]] = [{"content": data} for data in [*png, *jpeg]]
    sent += [{"content": data, "headers": {"x-roi": "20,20,180,190"}} for data in jpeg]
    sent += [{"content": data, "headers": {"x-explain": "gradcam"}} for data in jpeg[:6]]
    sent += [
        {"json": {"image": base64.b64encode(data).decode(), "roi": [0, 0, 90, 90]}}
        for data in jpeg[:6]
    ]
    sent += [{"files": {"image": data}, "data": {"roi": "9,9,99,99"}} for data in jpeg[:6]]
    sent += [{"content": data[: len(data) // 2]} for data in png[:4]]
    sent += [{"content": data, "headers": {"x-roi": "0,0,9999,9"}} for data in jpeg[:4]]
    sent += [{"content": rng.bytes(3000)}, {"content": b"{", "headers": {"x-frame": "nine"}}]
    return sent


def slope(samples: list[tuple[int, dict[str, float]]], who: str) -> float:
    """MiB per 1,000 requests over the last half of the requests."""
    late = samples[len(samples) // 2 :]
    counts = np.array([count for count, _ in late]) / 1000
    return float(np.polyfit(counts, [rss[who] for _, rss in late], 1)[0])


def main() -> None:
    """Send, sample, print the table; exit 1 where memory grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    arguments = parser.parse_args()
    sent = requests(np.random.default_rng(0))
    samples: list[tuple[int, dict[str, float]]] = []
    statuses: Counter[int] = Counter()
    lock = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="sonode-soak-") as name:
        folder = Path(name)
        archive = make_archive(folder, "resnet18")
        with (
            TorchServeNode(archive.parent, {"m": archive.name}, folder / "node") as node,
            httpx.Client(timeout=60, trust_env=False) as client,
            ThreadPoolExecutor(CONCURRENCY) as pool,
        ):
            url = f"{node.inference_url}/predictions/m"
            await_workers(node, node.plan.workers)
            processes = {
                who: [
                    process
                    for process in processes_about(folder / "node")
                    if any(mark in part for part in process.cmdline()[1:])
                ]
                for who, mark in MARK.items()
            }
            assert {who: len(found) for who, found in processes.items()} == {
                "workers": node.plan.workers,
                "java": 1,
            }

            def post(number: int) -> None:
                row = sent[number % len(sent)]
                bearer = {"Authorization": f"Bearer {node.token()}"}
                answer = client.post(url, **row | {"headers": bearer | row.get("headers", {})})
                with lock:
                    statuses[answer.status_code] += 1
                    if sum(statuses.values()) % EVERY == 0:
                        rss = {
                            who: sum(process.memory_info().rss for process in those) / 2**20
                            for who, those in processes.items()
                        }
                        samples.append((sum(statuses.values()), rss))

            started = time.monotonic()
            done = pool.map(post, range(arguments.requests))
            list(progress(done, total=arguments.requests, what="soak"))
            seconds = time.monotonic() - started
            # None was started anew: that would hide what it had grown to.
            assert all(process.is_running() for those in processes.values() for process in those)
    step = max(1, len(samples) // 10)
    table(
        f"{arguments.requests} requests in {seconds:.0f} s: "
        + ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())),
        ("requests", *(f"{who}, MiB" for who in BOUND)),
        [
            (f"{count}", *(f"{rss[who]:.1f}" for who in BOUND))
            for count, rss in samples[step - 1 :: step]
        ],
    )
    grown = {who: slope(samples, who) for who in BOUND}
    for who, bound in BOUND.items():
        print(f"{who}: {grown[who]:+.2f} MiB per 1,000 requests in the last half (at most {bound})")
    unexpected = set(statuses) - {200, 400, 415, 422}
    if unexpected or any(grown[who] > bound for who, bound in BOUND.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
