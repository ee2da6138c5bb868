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
import math
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import torch
from PIL import Image
from torchvision import transforms

from archives.packing.loader import LoadedArchive, load_archive
from archives.packing.pack import pack
from batch.run import score
from batch.storage import objects
from model_def import checkpoint
from model_def.network import Network, joined
from model_def.preprocessing import Preprocessing
from sonode.console import progress, say
from sonode.demo.local_s3 import LocalS3
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.load import drive
from tests.benchmarks.machine import Compared, table
from tests.conftest import HEADS

BATCH = 16
DISK, S3 = "disk", "S3"
SERVER, PLAIN = "TorchServe", "plain loop"


def make_archive(folder: Path, architecture: str, size: int = 256, members: int = 1) -> Path:
    """An archive with seeded random weights: what they are does not change the speed.

    But for members: of equal ones OpenVINO computes one.
    """
    torch.manual_seed(0)
    networks = [Network(architecture, len(HEADS)) for _ in range(members)]
    network = networks[0] if members == 1 else joined(architecture, networks)
    card = checkpoint.ModelCard(
        architecture=architecture,
        heads=HEADS,
        preprocessing=Preprocessing(size=size),
        training={},
        members=members,
    )
    checkpoint.save(folder / "checkpoint", network, card)
    return pack(folder / "checkpoint", "bench", "1.0", folder / "store")


@dataclass(frozen=True)
class Cost:
    """Of an image, in milliseconds: on the clock, and of all cores together."""

    wall: float
    cpu: float


class Meter:
    """CPU time of this process and of the servers that it knows, and the clock's."""

    def __init__(self, *servers: int) -> None:
        self.costs: dict[str, list[Cost]] = {}
        self._servers = [psutil.Process(pid) for pid in servers]

    def measure(self, what: str, images: int, work: Callable[[], object]) -> None:
        """Run `work`, which handles so many images, and note what one of them cost."""
        wall, cpu = time.perf_counter(), self._cpu()
        work()
        cpu = self._cpu() - cpu
        wall = time.perf_counter() - wall
        self.note(what, Cost(1000 * wall / images, 1000 * cpu / images))

    def note(self, what: str, cost: Cost) -> None:
        """Keep and tell a cost."""
        self.costs.setdefault(what, []).append(cost)
        say(f"{what:<20} {1000 / cost.wall:7.1f}/s {cost.cpu:7.1f} ms of a core")

    def _cpu(self) -> float:
        return time.process_time() + sum(sum(it.cpu_times()[:2]) for it in self._servers)


def alone(archive: LoadedArchive, places: dict[str, list[str]], roi: str, meter: Meter) -> None:
    """Fetch, decode and forward, each alone on as many threads as there are cores."""
    images = len(places[DISK])
    concurrency = archive.max_concurrency
    with ThreadPoolExecutor(archive.threads) as pool, ThreadPoolExecutor(concurrency) as networks:
        for place, uris in places.items():
            meter.measure(
                f"fetch, {place}",
                images,
                lambda uris=uris: deque(pool.map(objects.read, uris), maxlen=0),
            )
        rows = [{"image": objects.read(uri).data, "roi": roi} for uri in places[DISK]]
        prepared: list[object] = []
        meter.measure("decode", images, lambda: prepared.extend(pool.map(archive.preprocess, rows)))
        size = archive.micro_batch
        batches = [prepared[start : start + size] for start in range(0, images, size)]
        forward = archive.service.inference
        list(networks.map(forward, batches[:1] * concurrency))  # warm
        meter.measure("forward", images, lambda: deque(networks.map(forward, batches), maxlen=0))


def job(archive: LoadedArchive, manifest: str, out: str, explain: str | None) -> None:
    """The batch job, to its end."""
    summary = score(manifest, out, archive, explain=explain, progress=progress)
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


def main() -> list[Compared]:
    """Measure and print the tables."""
    from tests.benchmarks.servers import serving

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--frames", type=Path, default=BUSI, help="folder in the layout of BUSI")
    arguments = parser.parse_args()
    what, images = frames(arguments.frames)
    bodies = encoded(images, "PNG")
    size = sum(map(len, bodies)) / len(bodies) / 1000
    count = arguments.images
    roi = middle(images)
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
        meter = Meter(s3._process.pid)
        few = max(count // 4, 1)  # of what is slow
        for number in range(arguments.rounds):
            with load_archive(archive) as loaded:
                engine, threads = loaded.engine, loaded.threads
                alone(loaded, places, ",".join(map(str, roi)), meter)
                for place, root in roots.items():
                    for explain in (None, "gradcam"):
                        run = (f"{root}/manifest.parquet", f"{root}/out-{number}-{explain}")
                        meter.measure(
                            job_name(place, explain),
                            count,
                            lambda run=run, explain=explain: job(loaded, *run, explain),
                        )
                meter.measure(PLAIN, few, lambda: plain_loop(folder, places[DISK][:few], roi))
            with serving("archive", archive, folder / str(number)) as server:
                headers = {**server.headers, "X-Roi": ",".join(map(str, roi))}
                drive(server.url, bodies, concurrency=1, seconds=2, headers=headers)  # warm
                load = drive(server.url, bodies, concurrency=1, seconds=few / 20, headers=headers)
                meter.note(SERVER, Cost(1000 / load.per_second, math.nan))
    return report(
        meter.costs,
        threads,
        f"{arguments.architecture}, {engine}, {threads} cores; {what} PNGs of {size:.0f} kB",
    )


def middle(images: Sequence[Image.Image]) -> list[int]:
    """A RoI that all frames have."""
    width, height = (min(image.size[side] for image in images) for side in (0, 1))
    return [width // 4, height // 4, 3 * width // 4, 3 * height // 4]


def job_name(place: str, explain: str | None) -> str:
    """How the tables call it."""
    return f"job, {place}" + (", gradcam" if explain else "")


def put(root: str, bodies: Sequence[bytes], roi: Sequence[int], count: int) -> list[str]:
    """Write `count` objects and their manifest; their URIs."""
    uris = [objects.join(root, f"images/{number:05d}.png") for number in range(count)]
    for number, uri in enumerate(uris):
        objects.write(uri, bodies[number % len(bodies)])
    columns = dict(zip(("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max"), roi, strict=True))
    manifest = pd.DataFrame({"image_uri": uris, **columns}).to_parquet()
    assert manifest is not None
    objects.write(objects.join(root, "manifest.parquet"), manifest)
    return uris


def report(costs: dict[str, list[Cost]], cores: int, title: str) -> list[Compared]:
    """The tables for people: medians, and what they are to each other."""
    wall = {what: statistics.median(cost.wall for cost in it) for what, it in costs.items()}
    cpu = {what: statistics.median(cost.cpu for cost in it) for what, it in costs.items()}
    table(
        title,
        ("what", "images/s", "ms of a core"),
        [
            (what, f"{1000 / wall[what]:.1f}", "-" if math.isnan(spent) else f"{spent:.1f}")
            for what, spent in cpu.items()
        ],
    )
    ratios = []
    for place, near in ((DISK, "0.92"), (S3, "0.9")):
        own, explained = job_name(place, None), job_name(place, "gradcam")
        least = cpu[f"fetch, {place}"] + cpu["decode"] + cpu["forward"]
        limit = f"{own}, of the limit of {1000 * cores / least:.1f}/s"
        ratios += [
            (limit, least / cores / wall[own], least / cpu[own], near),
            (
                f"{explained}, of {own}",
                wall[own] / wall[explained],
                cpu[own] / cpu[explained],
                "0.85",
            ),
        ]
    own = job_name(DISK, None)
    ratios += [
        (f"{own}, times {what}", wall[what] / wall[own], cpu[what] / cpu[own], goal)
        for what, goal in ((SERVER, "1.3"), (PLAIN, "5"))
    ]
    compared = [
        (what, f"{clock:.2f}", "-" if math.isnan(spent) else f"{spent:.2f}", goal)
        for what, clock, spent, goal in ratios
    ]
    table("in comparison", ("what", "by the clock", "by CPU time", "goal"), compared)
    return [
        (what, clock if spent == "-" else f"{clock}, by CPU time {spent}", goal)
        for what, clock, spent, goal in compared
    ]


if __name__ == "__main__":
    main()
