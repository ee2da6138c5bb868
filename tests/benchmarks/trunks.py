"""What trunks, sizes and members cost: forward passes alone, and the batch job from disk.

python -m tests.benchmarks.trunks [--networks resnet18@256 tf_efficientnet_lite0@256x3]

Each network is ARCHITECTURE@SIZE or ARCHITECTURE@SIZExMEMBERS, with random weights. They take
turns, round by round, in one process, so that what else the machine does meets all of them: on a
busy machine CPU time and its ratios still tell, images/s do not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from archives.packing.loader import load_archive
from sonode.console import table
from tests.benchmarks.images import BUSI, encoded, frames
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
    parser.add_argument("--frames", type=Path, default=BUSI, help="folder in the layout of BUSI")
    arguments = parser.parse_args()
    what, images = frames(arguments.frames)
    roi = middle(images)
    meters: dict[tuple[str, str], Meter] = {}
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        folder = Path(name)
        places = {DISK: put(str(folder), encoded(images, "PNG"), roi, arguments.images)}
        archives = {}
        for number, network in enumerate(arguments.networks):
            architecture, _, shape = network.partition("@")
            size, _, members = shape.partition("x")
            archives[network] = make_archive(
                folder / str(number), architecture, int(size), int(members or 1)
            )
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


if __name__ == "__main__":
    main()
