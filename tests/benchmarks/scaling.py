"""Batch on Ray from 1 to 2 workers of one core each: weak scaling, and Ray's overhead.

python -m tests.benchmarks.scaling [--images N] [--architecture resnet18] [--rounds N]

Every process is pinned to a core of its own, so that one worker is one core. What two cores allow
is what two plain local processes reach side by side, which share caches and memory bandwidth as two
workers do. Each worker gets N images; loading is not counted on any side. Beside it stand the costs
of an image in a bare loop, for the model of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from archives.packing.loader import LoadedArchive
from batch import run
from batch.executors.ray_executor import connected
from batch.scoring.archive_file import open_archive
from sonode.console import progress
from tests.benchmarks.machine import Compared, table
from tests.benchmarks.throughput import make_archive
from train.importers.phantom import write_phantom

CORES = sorted(os.sched_getaffinity(0))[:2]
SETTINGS = {"threads": 1}


@contextmanager
def pinned(taken: Path, uri: str, settings: Mapping[str, object]) -> Iterator[LoadedArchive]:
    """Open an archive in a process that stays on the first core that `taken` has no file of."""
    for core in CORES:
        try:
            (taken / str(core)).touch(exist_ok=False)
        except FileExistsError:
            continue
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - numbers, not files
            os.sched_setaffinity(int(thread), {core})
        break
    else:
        raise RuntimeError("more workers than cores")
    with open_archive(uri, settings) as archive:
        yield archive


def score(manifest: Path, archive: Any, images: int, **options: Any) -> float:
    """Score a manifest; images/s from the first fetch to the last write."""
    summary = run.score(
        str(manifest),
        tempfile.mkdtemp(dir=manifest.parent),
        archive,
        explain=None,
        progress=progress,
        shard_rows=max(1, images // 8),
        **options,
    )
    assert summary.by_status["failed"] == 0
    return summary.images_per_second


def local(path: str, images: int, manifest: Path, taken: Path, ready: Any, told: Any) -> None:
    """The local executor in this process, beginning when all of them are `ready`.

    A first run warms it up: it pays 0.7 s once, which Ray's workers have paid when they are ready.
    """
    with pinned(taken, path, SETTINGS) as archive:
        score(manifest, archive, images)
        ready.wait()
        told.put(score(manifest, archive, images))


def on_ray(path: str, images: int, manifest: Path, taken: Path, workers: int, told: Any) -> None:
    """Ray with workers of one core, beginning when all of them are ready."""
    opener = partial(pinned, taken)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as the local executor is
    with connected(
        None, path, SETTINGS, workers=workers, cpus=1, gpus=0, opener=opener
    ) as executor:
        while any(worker.loading for worker in executor._workers):
            executor._finished()
        told.put(score(manifest, executor.archive, images, executor=executor))


def costs(path: str, images: list[Path], taken: Path, told: Any) -> None:
    """Milliseconds of one core that an image takes: to read, to decode, and in the network."""
    with pinned(taken, path, SETTINGS) as archive:
        row = {"image": images[0].read_bytes()}
        archive.score_prepared([archive.preprocess(row)] * archive.micro_batch)  # warm
        begin = time.perf_counter()
        rows = [{"image": image.read_bytes()} for image in images]
        read = time.perf_counter()
        prepared = [archive.preprocess(row) for row in rows]
        decoded = time.perf_counter()
        for start in range(0, len(prepared), archive.micro_batch):
            archive.score_prepared(prepared[start : start + archive.micro_batch])
        scored = time.perf_counter()
    edges = (begin, read, decoded, scored)
    told.put([1000 * (b - a) / len(images) for a, b in pairwise(edges)])


def together(folder: Path, *calls: Any) -> list[Any]:
    """Run `calls` at once, each in a process of its own; what they tell."""
    spawn = multiprocessing.get_context("spawn")  # Ray's environment is read once in a process
    told = spawn.Queue()
    taken = Path(tempfile.mkdtemp(dir=folder))
    ready = spawn.Barrier(len(calls))
    processes = [
        spawn.Process(target=call, kwargs={"taken": taken, "told": told, **extra(ready)})
        for call, extra in calls
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a process ended with {process.exitcode}")
    return [told.get() for _ in processes]


def main() -> list[Compared]:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400, help="of each worker")
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if len(CORES) < 2:
        raise SystemExit("two cores are needed")
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        folder = Path(name)
        n = arguments.images
        write_phantom(folder / "cohort", n, 0)  # two images of each patient at least
        paths = sorted((folder / "cohort" / "images").iterdir())[: 2 * n]
        manifests = []
        for number, part in enumerate((paths[:n], paths[n:], paths)):
            manifests.append(folder / f"{number}.parquet")
            pd.DataFrame({"image_uri": [str(path) for path in part]}).to_parquet(manifests[-1])
        archive = str(make_archive(folder, arguments.architecture))
        one, other, both = manifests

        def plain(manifest: Path) -> Any:
            return partial(local, archive, n, manifest), lambda ready: {"ready": ready}

        def ray(manifest: Path, workers: int) -> Any:
            return partial(on_ray, archive, n, manifest, workers=workers), lambda _: {}

        (each,) = together(folder, (partial(costs, archive, paths[:n]), lambda _: {}))
        found: dict[str, list[float]] = {"local": [], "locals": [], "ray": [], "rays": []}
        for _ in range(arguments.rounds):
            found["local"] += together(folder, plain(one))
            found["locals"].append(sum(together(folder, plain(one), plain(other))))
            found["ray"] += together(folder, ray(one, 1))
            found["rays"] += together(folder, ray(both, 2))
    return report(
        arguments, {kind: statistics.median(speeds) for kind, speeds in found.items()}, each
    )


def report(arguments: Any, speed: Mapping[str, float], each: list[float]) -> list[Compared]:
    """Print what was measured: medians of the rounds."""
    allowed = speed["locals"] / speed["local"]
    table(
        f"{arguments.architecture}, {arguments.images} images for each worker of one core, "
        f"median of {arguments.rounds}",
        ("what", "images/s", "x one worker", "of what two cores allow"),
        [
            ("local executor, one process", f"{speed['local']:.1f}", "1.00", ""),
            ("local executor, two processes", f"{speed['locals']:.1f}", f"{allowed:.2f}", "1.00"),
            (
                *("Ray, one worker", f"{speed['ray']:.1f}", "1.00"),
                f"{speed['ray'] / speed['local']:.2f} of the local executor",
            ),
            (
                *("Ray, two workers", f"{speed['rays']:.1f}"),
                f"{speed['rays'] / speed['ray']:.2f}",
                f"{speed['rays'] / speed['locals']:.2f}",
            ),
        ],
    )
    names = ("read", "decode", "network")
    table(
        "an image on one core",
        ("stage", "ms"),
        [(stage, f"{ms:.2f}") for stage, ms in zip(names, each, strict=True)],
    )
    share = f"{speed['rays'] / speed['locals']:.2f}"
    return [("rows/s, two workers of Ray, of two local processes", share, "")]


if __name__ == "__main__":
    from tests.benchmarks import scaling  # by a name that Ray's workers know, too

    scaling.main()
