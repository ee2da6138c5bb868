"""What trunks, sizes and members cost: forward passes alone, and the batch job from disk.

python -m tests.benchmarks.trunks [--networks resnet18@256 tf_efficientnet_lite0@256x3] [--online]

`--online`: behind `sonode serve --server asgi` in place of the job, asked by one client.

Each network is ARCHITECTURE@SIZE or ARCHITECTURE@SIZExMEMBERS, with random weights. They take
turns, round by round, in one process, so that what else the machine does meets all of them: on a
busy machine CPU time and its ratios still tell, images/s do not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from archives.packing.loader import load_archive
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.load import drive
from tests.benchmarks.machine import table
from tests.benchmarks.servers import serving
from tests.benchmarks.throughput import DISK, Meter, alone, job, job_name, make_archive, middle, put

NETWORKS = (
    "resnet18@256",
    "resnet50@256",
    *(f"tf_efficientnet_lite0@{size}" for size in (192, 224, 256)),
    *(f"tf_efficientnet_lite0@256x{members}" for members in (3, 5)),
)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--engines", nargs="+", default=("openvino-fp32", "openvino"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--online", action="store_true")
    parser.add_argument("--seconds", type=float, default=5, help="of each load, with --online")
    parser.add_argument("--frames", type=Path, default=BUSI, help="folder in the layout of BUSI")
    arguments = parser.parse_args()
    what, images = frames(arguments.frames)
    roi = middle(images)
    meters: dict[tuple[str, str], Meter] = {}
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        folder = Path(name)
        files = encoded(images, "PNG")
        archives = {}
        for number, network in enumerate(arguments.networks):
            architecture, _, shape = network.partition("@")
            size, _, members = shape.partition("x")
            archives[network] = make_archive(
                folder / str(number), architecture, int(size), int(members or 1)
            )
        if arguments.online:
            online(archives, files, folder, arguments.rounds, arguments.seconds)
            return
        places = {DISK: put(str(folder), files, roi, arguments.images)}
        for number in range(arguments.rounds):
            for network, archive in archives.items():
                for engine in arguments.engines:
                    print(f"round {number + 1}: {network}, {engine}")
                    meter = meters.setdefault((network, engine), Meter())
                    with load_archive(archive, {"engine": engine}) as loaded:
                        alone(loaded, places, ",".join(map(str, roi)), meter)
                        for explain in (None, "gradcam"):
                            out = str(folder / f"out-{network}-{engine}-{number}-{explain}")
                            meter.measure(
                                job_name(DISK, explain),
                                arguments.images,
                                lambda out=out, explain=explain: job(
                                    loaded, str(folder / "manifest.parquet"), out, explain
                                ),
                            )
    report(meters, f"{what} PNGs, {os.cpu_count()} cores; in brackets: times as fast as the first")


def report(meters: dict[tuple[str, str], Meter], title: str) -> None:
    """The table for people: medians of the rounds, and how they compare with the first row."""
    columns = (
        ("forward", "cpu"),
        (job_name(DISK, None), "cpu"),
        (job_name(DISK, "gradcam"), "cpu"),
        (job_name(DISK, None), "wall"),
    )
    found = {
        name: [
            statistics.median(getattr(cost, of) for cost in meter.costs[it]) for it, of in columns
        ]
        for name, meter in meters.items()
    }
    first = next(iter(found.values()))
    table(
        title,
        ("network", "engine", "forward, ms of a core", "job", "with Grad-CAM", "job, images/s"),
        [
            (
                *name,
                *(f"{its:.1f} ({one / its:.2f})" for one, its in zip(first[:-1], cpu, strict=True)),
                f"{1000 / wall:.1f} ({first[-1] / wall:.2f})",
            )
            for name, (*cpu, wall) in found.items()
        ],
    )


def online(
    archives: Mapping[str, Path], files: Sequence[bytes], folder: Path, rounds: int, seconds: float
) -> None:
    """A server for each, asked in turn by one client: CPU time of its workers and of all of it."""
    costs: dict[str, list[tuple[float, float, float]]] = {network: [] for network in archives}
    with ExitStack() as running:
        servers = {
            network: running.enter_context(serving("asgi", archive, folder / f"served-{network}"))
            for network, archive in archives.items()
        }
        for turn in range(1 + rounds):
            for network, server in servers.items():
                with ExitStack() as others:
                    for other in servers.values():
                        if other is not server:
                            others.enter_context(other.asleep())
                    before = np.array(server.cpu_by_process())
                    load = drive(
                        server.url, files, concurrency=1, seconds=seconds, headers=server.headers
                    )
                    spent = 1000 * (server.cpu_by_process() - before) / load.requests
                if turn:  # the first warms
                    costs[network].append((spent[1:].sum(), spent.sum(), load.p50_ms))
    found = {network: np.array(its) for network, its in costs.items()}
    first = next(iter(found.values()))
    table(
        "one client, PNGs, medians of the rounds; in brackets: times the first's of that round",
        ("network", "workers, CPU ms an image", "whole server, CPU ms", "p50, ms"),
        [
            (
                network,
                *(
                    f"{one:.1f} ({ratio:.2f})"
                    for one, ratio in zip(
                        np.median(its, axis=0), np.median(its / first, axis=0), strict=True
                    )
                ),
            )
            for network, its in found.items()
        ],
    )


if __name__ == "__main__":
    main()
