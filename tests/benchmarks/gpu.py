"""Everything about a GPU in one run and one page: the checks that need one, and the measurements.

python -m tests.benchmarks.gpu [--device cpu] [--out gpu.md] [--seconds S] [--images N]

`make gpu` (`make gpu DEVICE=cpu` shows on the CPU what does not need one). A part that fails or
cannot run is a row with its reason, and the others go on. Exit code 1 where a check has failed.

* checks: the tests of CHECKS, on the GPU;
* bare: the engine alone, from as many threads as it takes, on crops that are in memory already;
* serve: `sonode serve` under both servers, clients on the same machine;
* batch: the job from disk to its parts;
* cores to feed it: CPU time to fetch and decode an image, times the images/s of the bare engine.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from archives.packing.loader import LoadedArchive, load_archive
from archives.packing.members import ArchiveError
from archives.torchserve.worker_plan import plan
from sonode.console import say
from tests.benchmarks.images import encoded, frames
from tests.benchmarks.load import drive
from tests.benchmarks.machine import cpu
from tests.benchmarks.servers import serving
from tests.benchmarks.throughput import DISK, Meter, alone, job, make_archive, middle, put

CHECKS = (
    "tests/test_gpu.py",
    "tests/handlers/engines/test_choose.py",
    "tests/handlers/test_service.py",
    "tests/train/running/test_precision.py",
)
ENGINES = {"cuda": ("eager", "cuda", "compile"), "cpu": ("eager", "openvino", "cuda")}
NOT_ON_CPU = ("compile", "skipped", "takes ten minutes and more on a CPU")
SIZES: dict[str, dict[str, Any]] = {
    "cuda": {"seconds": 10, "images": 4000, "networks": ["resnet18", "resnet50"]},
    "cpu": {"seconds": 2, "images": 100, "networks": ["resnet18"]},
}
"""How much is measured: on the CPU as little as shows that each part runs."""
CLIENTS = 64
Row = tuple[str, ...]


def machine(device: str) -> list[Row]:
    """What was measured on."""
    asked = "nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader"
    gpus, cudnn = "none", None
    if device == "cuda":
        gpus = subprocess.run(asked.split(), capture_output=True, text=True, check=True).stdout
        cudnn = torch.backends.cudnn.version()
    return [
        ("GPUs, memory, driver", gpus.strip().replace("\n", "; ")),
        ("measured on", device),
        ("torch", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}"),
        ("Python", f"{platform.python_version()}, {platform.platform()}"),
        ("CPU", cpu()),
    ]


def check(device: str) -> list[Row]:
    """Run the tests; each with its outcome, and the reason where it has not passed."""
    with tempfile.TemporaryDirectory(prefix="sonode-gpu-") as name:
        report = Path(name) / "junit.xml"
        command = [sys.executable, "-m", "pytest", *CHECKS, f"--junit-xml={report}"]
        if device == "cpu":
            command += ["-k", f"not {NOT_ON_CPU[0]}"]
        subprocess.run([*command, "-v", "--timeout=1200"], check=False)
        if not report.exists():
            return [("all of them", "failed", "pytest has not ended in order; see above")]
        cases = list(ElementTree.parse(report).iter("testcase"))
    rows = [NOT_ON_CPU] if device == "cpu" else []
    for case in cases:
        bad = [it for it in case if it.tag in ("failure", "error", "skipped")]
        outcome = ("skipped" if bad[0].tag == "skipped" else "failed") if bad else "passed"
        rows.append((str(case.get("name")), outcome, (bad[0].get("message") or "") if bad else ""))
    return sorted(rows, key=lambda row: ("failed", "skipped", "passed").index(row[1]))


@contextmanager
def watched() -> Iterator[list[str]]:
    """How busy the GPUs were during the block (nvidia-smi, mean), and their MiB at most."""
    found = ["-", "-"]
    with tempfile.TemporaryFile("w+") as file:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--loop-ms=200"]
        try:
            process = subprocess.Popen(
                [*command, "--format=csv,noheader,nounits"], stdout=file, stderr=file
            )
        except OSError:  # no driver
            yield found
            return
        try:
            yield found
        finally:
            process.terminate()
            process.wait()
        file.seek(0)
        lines = [line.split(",") for line in file.read().splitlines() if line.count(",") == 1]
        samples = [(float(a), float(b)) for a, b in lines if a.strip().isdigit()]
    if samples:
        found[:] = [
            f"{sum(a for a, _ in samples) / len(samples):.0f} %",
            f"{max(b for _, b in samples):.0f}",
        ]


def bare(loaded: LoadedArchive, seconds: float) -> tuple[float, list[str]]:
    """Images/s of the engine alone, and what `watched` gives."""
    engine = loaded.service.engine
    size = loaded.service.card.preprocessing.size
    crops_BSS = torch.randint(0, 256, (32, size, size), dtype=torch.uint8)
    engine.forward(crops_BSS)

    def repeat(until: float) -> int:
        passes = 0
        while time.perf_counter() < until:
            engine.forward(crops_BSS)
            passes += 1
        return passes

    with ThreadPoolExecutor(engine.max_concurrency) as pool:
        list(pool.map(repeat, [time.perf_counter() + 1] * engine.max_concurrency))  # warm
        with watched() as found:
            began = time.perf_counter()
            passes = sum(pool.map(repeat, [began + seconds] * engine.max_concurrency))
            ended = time.perf_counter()
    return passes * len(crops_BSS) / (ended - began), found


def attempt(what: str, work: Callable[[], Row]) -> Row:
    """A row of a table, or why there is none."""
    say(f"{what} ...")
    try:
        return (what, *work())
    except ArchiveError as error:  # an engine that this machine has not, or that gives other scores
        return (what, "skipped", str(error).splitlines()[0].replace("|", "/"), "-", "-")
    except Exception as error:  # of any kind: the rest is measured all the same
        reason = f"{type(error).__name__}: {error}".splitlines()[0].replace("|", "/")
        return (what, "failed", reason, "-", "-")


def measure(device: str, architecture: str, seconds: float, images: int) -> list[Row]:
    """What is measured of one network: images/s, CPU ms an image, how busy the GPU was."""
    rates = [0.0]
    what, pictures = frames()
    bodies, roi = encoded(pictures, "PNG"), middle(pictures)
    text = ",".join(map(str, roi))
    with tempfile.TemporaryDirectory(prefix="sonode-gpu-") as name:
        folder = Path(name)
        archive = make_archive(folder, architecture)

        def engine_alone(engine: str) -> Row:
            with load_archive(archive, {"engine": engine}) as loaded:
                rate, busy = bare(loaded, seconds)
            rates.append(rate)
            return (f"{rate:.0f}", "-", *busy)

        def server(kind: str) -> Row:
            with serving(kind, archive, folder / kind) as it:
                load: dict[str, Any] = {"headers": {**it.headers, "X-Roi": text}}
                drive(it.url, bodies, concurrency=CLIENTS, seconds=seconds / 2, **load)  # warm
                before = it.cpu_seconds()
                with watched() as busy:
                    found = drive(it.url, bodies, concurrency=CLIENTS, seconds=seconds, **load)
                cost = 1000 * (it.cpu_seconds() - before) / found.requests
            return (f"{found.per_second:.0f}", f"{cost:.1f}", *busy)

        def batch() -> Row:
            with load_archive(archive) as loaded, watched() as busy:
                meter.measure(
                    "job", images, lambda: job(loaded, str(folder / "manifest.parquet"), out, None)
                )
            cost = meter.costs["job"][0]
            return (f"{1000 / cost.wall:.0f}", f"{cost.cpu:.1f}", *busy)

        def feeding() -> Row:
            with load_archive(archive) as loaded:
                alone(loaded, places, text, meter)
            cost = sum(meter.costs[it][0].cpu for it in (f"fetch, {DISK}", "decode"))
            return (f"{max(rates) * cost / 1000:.1f} cores", f"{cost:.1f}", "-", "-")

        todo = [(f"bare, engine {it}", partial(engine_alone, it)) for it in ENGINES[device]]
        todo += [("serve, TorchServe", partial(server, "archive"))]
        todo += [("serve, second server", partial(server, "asgi"))]
        places = {DISK: put(str(folder), bodies, roi, images)}
        meter, out = Meter(), str(folder / "out")
        todo += [(f"batch, {images} {what} PNGs from disk", batch)]
        todo += [("to feed the fastest bare engine: fetch and decode", feeding)]
        return [attempt(*it) for it in todo]


def training(device: str) -> Row:
    """`sonode train fit` against a bare loop; its table is printed, its lines are quoted."""
    kind = "gpu" if device == "cuda" else "cpu"
    command = [sys.executable, "-m", "tests.benchmarks.training", "--epochs=1"]
    command += ["--patients=40", f"--trainer.accelerator={kind}", "--trainer.devices=1"]
    with watched() as busy:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if "│" in line]
    if done.returncode or len(found) < 2:
        raise RuntimeError((done.stderr.splitlines() or ["no table"])[-1])
    own, loop = (
        next(it.split("│")[2].strip() for it in found if words in it)
        for words in ("sonode train fit", "bare forward")
    )
    return (own, f"bare loop {loop} images/s", *busy)


def written(title: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return f"\n## {title}\n\n" + "".join(
        "| " + " | ".join(it.replace("\n", " ").replace("|", "/") for it in row) + " |\n"
        for row in lines
    )


def main() -> None:
    """Check, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    parser.add_argument("--seconds", type=float, help="of each load")
    parser.add_argument("--images", type=int, help="of the batch job")
    parser.add_argument("--networks", nargs="+")
    parser.set_defaults(**SIZES[parser.parse_known_args()[0].device])
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            "--device cuda: torch finds no CUDA device (is the driver there, and torch no CPU "
            "build?); `make gpu DEVICE=cpu` shows what runs without one"
        )
    if given.device == "cpu":  # also on a machine that has one, in all that is started from here
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    checks = check(given.device)
    columns = ("what", "images/s", "CPU ms an image", "GPU busy", "MiB of it")
    page = "# sonode on a GPU\n" + written("Machine", ("", ""), machine(given.device))
    page += written("Checks", ("test", "outcome", "why"), checks)
    for network in given.networks:
        rows = measure(given.device, network, given.seconds, given.images)
        page += written(f"{network}, 256 x 256, workers {plan().workers}", columns, rows)
    one = attempt("pretrain.yaml, one epoch", lambda: training(given.device))
    page += written("Training", ("what", "images/s", "beside it", *columns[3:]), [one])
    given.out.write_text(page)
    failed = [name for name, outcome, _ in checks if outcome == "failed"]
    say(f"{given.out}: {len(checks)} checks, {len(failed)} failed")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
