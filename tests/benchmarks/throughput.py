"""The batch job end to end, the limit of the machine, and what else one could do with its images.

python -m tests.benchmarks.throughput [--images 400] [--frames FOLDER] [--rounds 3]

* job: `sonode score` but for the start of its process, from a manifest to run.json; images and
  results on disk or in S3 (SeaweedFS on the same cores), without and with Grad-CAM of both heads;
* limit: cores / (CPU seconds to fetch an image + to decode it + of its forward pass), each measured
  alone with all cores at it, as they would be with perfect overlap. To fetch from S3 costs what
  it costs here and in the server;
* TorchServe: `sonode serve` as it is shipped, the same images posted one by one;
* plain loop: PIL, torchvision's transforms, batches of 16, torch in float32.

All of them in turn, `rounds` times; the medians are shown. CPU time tells on a machine with other
work, too, where images/s do not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import torch
from PIL import Image
from torchvision import transforms

from archives.build import pack
from archives.loader import LoadedArchive, load_archive
from batch import scorer, storage
from batch.local_s3 import LocalS3
from model_def import checkpoint
from model_def.network import Network
from model_def.preprocessing import Preprocessing
from sonode_console import progress, say, table
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.load import drive
from tests.conftest import HEADS

BATCH = 16
DISK, S3 = "disk", "S3"


def make_archive(folder: Path, architecture: str) -> Path:
    """An archive with seeded random weights: what they are does not change the speed."""
    torch.manual_seed(0)
    card = checkpoint.ModelCard(
        architecture=architecture,  # type: ignore[arg-type]  # checked by the card
        heads=HEADS,
        preprocessing=Preprocessing(),
        training={},
    )
    checkpoint.save(folder / "checkpoint", Network(card.architecture, len(HEADS)), card)
    return pack(folder / "checkpoint", "bench", "1.0", folder / "store")


@dataclass(frozen=True)
class Cost:
    """Of an image, in milliseconds: on the clock, and of all cores together."""

    wall: float
    cpu: float


class Stage:
    """What it measures is CPU time of this process and of the servers that it knows."""

    def __init__(self, *servers: int) -> None:
        self.servers = [psutil.Process(pid) for pid in servers]

    def cost(self, images: int, work: Callable[[], object]) -> Cost:
        """Run `work`, which handles so many images."""
        wall, cpu = time.perf_counter(), self._cpu()
        work()
        cpu = self._cpu() - cpu
        wall = time.perf_counter() - wall
        return Cost(1000 * wall / images, 1000 * cpu / images)

    def _cpu(self) -> float:
        return time.process_time() + sum(sum(it.cpu_times()[:2]) for it in self.servers)


def parts(
    archive: LoadedArchive, places: dict[str, list[str]], roi: str, stage: Stage
) -> dict[str, Cost]:
    """Fetch, decode and forward alone, on as many threads as there are cores."""
    found = {}
    images = len(places[DISK])
    with ThreadPoolExecutor(archive.threads) as pool:

        def each(work: Callable[[object], object], items: Sequence[object]) -> list[object]:
            return list(pool.map(work, items))

        for place, uris in places.items():
            found[f"fetch from {place}"] = stage.cost(
                images, lambda uris=uris: each(lambda uri: len(storage.read(str(uri)).data), uris)
            )
        rows = [{"image": storage.read(uri).data, "roi": roi} for uri in places[DISK]]
        prepared: list[object] = []
        found["decode"] = stage.cost(
            images,
            lambda: prepared.extend(each(archive.preprocess, rows)),  # type: ignore[arg-type]
        )
        size = archive.micro_batch
        batches = [prepared[start : start + size] for start in range(0, images, size)]
        service = archive.service
        with ThreadPoolExecutor(archive.lanes) as lanes:
            found["forward"] = stage.cost(
                images, lambda: list(lanes.map(service.inference, batches))
            )
    return found


def job(archive: LoadedArchive, manifest: str, out: str, explain: str | None) -> None:
    """The batch job, to its end."""
    summary = scorer.score(manifest, out, archive, explain=explain, progress=progress)
    assert summary.by_status["failed"] == 0


def plain_loop(folder: Path, paths: Sequence[str], roi: Sequence[int]) -> None:
    """What most people write first."""
    network, card = checkpoint.load(folder / "checkpoint")
    facts = card.preprocessing
    transform = transforms.Compose(
        [
            transforms.Resize((facts.size, facts.size)),
            transforms.ToTensor(),
            transforms.Normalize(facts.mean, facts.std),
        ]
    )
    network.eval()
    for start in range(0, len(paths), BATCH):
        images = [
            transform(Image.open(path).convert("RGB").crop(tuple(roi)))  # type: ignore[arg-type]
            for path in paths[start : start + BATCH]
        ]
        with torch.no_grad():
            torch.sigmoid(network(torch.stack(images))[0])


def main() -> None:
    """Measure and print the tables."""
    from tests.benchmarks.serving import serving

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--architecture", default="resnet50", choices=("resnet18", "resnet50"))
    parser.add_argument("--frames", type=Path, default=BUSI, help="folder in the layout of BUSI")
    arguments = parser.parse_args()
    what, images = frames(arguments.frames)
    bodies = encoded(images, "PNG")
    size = sum(map(len, bodies)) / len(bodies) / 1000
    count = arguments.images
    width, height = (min(image.size[side] for image in images) for side in (0, 1))
    roi = [width // 4, height // 4, 3 * width // 4, 3 * height // 4]  # one that all frames have
    costs: dict[str, list[Cost]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="sonode-bench-") as name,
        LocalS3(Path(name) / "s3", bucket="bench") as s3,
    ):
        folder = Path(name)
        s3.take_over()
        roots = {DISK: str(folder / "disk"), S3: "s3://bench"}
        archive = make_archive(folder, arguments.architecture)
        places = {place: put(root, bodies, roi, count) for place, root in roots.items()}
        assert s3._process is not None
        stage = Stage(s3._process.pid)
        few = max(count // 4, 1)  # of what is slow
        for number in range(arguments.rounds):
            measured = {}
            with load_archive(archive) as loaded:
                engine, threads = loaded.engine, loaded.threads
                measured |= parts(loaded, places, ",".join(map(str, roi)), stage)
                for place, root in roots.items():
                    for explain in (None, "gradcam"):
                        run = (
                            f"{root}/manifest.parquet",
                            f"{root}/out-{number}-{explain}",
                        )
                        measured[job_name(place, explain)] = stage.cost(
                            count,
                            lambda run=run, explain=explain: job(loaded, *run, explain),
                        )
                measured["plain loop"] = stage.cost(
                    few, lambda: plain_loop(folder, places[DISK][:few], roi)
                )
            with serving("archive", archive, folder / str(number)) as (url, token, _):
                headers = {**token, "X-Roi": ",".join(map(str, roi))}
                drive(url, bodies, concurrency=1, seconds=2, headers=headers)  # warm
                load = drive(url, bodies, concurrency=1, seconds=few / 20, headers=headers)
                measured["TorchServe"] = Cost(1000 / load.per_second, float("nan"))
            for name_, cost in measured.items():
                costs.setdefault(name_, []).append(cost)
            say(f"round {number + 1} of {arguments.rounds}")
    report(
        costs,
        threads,
        f"{arguments.architecture}, {engine}, {threads} cores; {what}, {size:.0f} kB",
    )


def job_name(place: str, explain: str | None) -> str:
    """How the tables call it."""
    return f"job, {place}" + (", gradcam" if explain else "")


def put(root: str, bodies: Sequence[bytes], roi: Sequence[int], count: int) -> list[str]:
    """Write `count` objects and their manifest; their URIs."""
    uris = [storage.join(root, f"images/{number:05d}.png") for number in range(count)]
    for number, uri in enumerate(uris):
        storage.write(uri, bodies[number % len(bodies)])
    columns = dict(zip(("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max"), roi, strict=True))
    manifest = pd.DataFrame({"image_uri": uris, **columns}).to_parquet()
    assert manifest is not None
    storage.write(storage.join(root, "manifest.parquet"), manifest)
    return uris


def report(costs: dict[str, list[Cost]], cores: int, title: str) -> None:
    """The tables for people."""
    wall = {name: statistics.median(cost.wall for cost in it) for name, it in costs.items()}
    cpu = {name: statistics.median(cost.cpu for cost in it) for name, it in costs.items()}
    table(
        title,
        ("what", "images/s", "ms of a core"),
        [(name, f"{1000 / wall[name]:.1f}", f"{cpu[name]:.1f}") for name in costs],
    )
    goals = []
    for place in (DISK, S3):
        least = cpu[f"fetch from {place}"] + cpu["decode"] + cpu["forward"]
        own, explained = job_name(place, None), job_name(place, "gradcam")
        limit = 1000 * cores / least
        goals += [
            (
                f"{own}: of the limit of {limit:.1f}/s",
                least / cores / wall[own],
                least / cpu[own],
                "0.9",
            ),
            (
                f"{place}, Grad-CAM: of the job without",
                wall[own] / wall[explained],
                cpu[own] / cpu[explained],
                "0.85",
            ),
        ]
    own = job_name(DISK, None)
    goals += [
        ("job, disk: times TorchServe, one by one", wall["TorchServe"] / wall[own], None, "1.3"),
        (
            "job, disk: times the plain loop",
            wall["plain loop"] / wall[own],
            cpu["plain loop"] / cpu[own],
            "5",
        ),
    ]
    table(
        "ratios",
        ("what", "by the clock", "by CPU time", "goal"),
        [
            (n, f"{clock:.2f}", "-" if of_cpu is None else f"{of_cpu:.2f}", goal)
            for n, clock, of_cpu, goal in goals
        ],
    )


if __name__ == "__main__":
    main()
