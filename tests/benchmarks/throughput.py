"""One archive two ways on one machine in one run: bare engine, batch job (see also serving.py).

python -m tests.benchmarks.throughput [--images N] [--architecture resnet18]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from archives.build import pack
from archives.loader import load_archive
from batch import scorer
from model_def import checkpoint
from model_def.network import Network
from model_def.preprocessing import Preprocessing
from sonode_console import progress, table
from tests.conftest import HEADS
from train.phantom import write_phantom

BATCH = 16


def per_second(count: int, work: Callable[[], object]) -> float:
    """Run `work`, which handles `count` images, and return images per second."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


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


def bare_engine(archive: Path, paths: list[Path]) -> float:
    """The forward pass alone, on crops that are decoded already."""
    with load_archive(archive) as loaded:
        service = loaded.service
        prepared = [service.preprocess({"image": path.read_bytes()}, {}) for path in paths]

        def work() -> None:
            for start in range(0, len(prepared), BATCH):
                service.inference(prepared[start : start + BATCH])

        return per_second(len(paths), work)


def batch_job(archive: Path, paths: list[Path], folder: Path) -> float:
    """The batch job over the same files, decoding and Parquet included."""
    manifest = folder / "manifest.parquet"
    pd.DataFrame({"image_uri": [str(path) for path in paths]}).to_parquet(manifest)
    with load_archive(archive) as loaded:
        summary = scorer.score(
            str(manifest),
            str(folder / "scores"),
            loaded,
            explain=None,
            batch_size=BATCH,
            progress=progress,
        )
    assert summary.by_status["failed"] == 0
    return summary.images_per_second


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--architecture", default="resnet18", choices=("resnet18", "resnet50"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        folder = Path(name)
        write_phantom(folder / "cohort", -(-arguments.images // 2), 0)
        paths = sorted((folder / "cohort" / "images").iterdir())[: arguments.images]
        archive = make_archive(folder, arguments.architecture)
        bare = bare_engine(archive, paths)
        batch = batch_job(archive, paths, folder)
    table(
        f"{arguments.architecture}, {len(paths)} images, {torch.get_num_threads()} threads",
        ("what", "images/s", "of the engine"),
        [
            ("bare engine, batches of 16", f"{bare:.1f}", "1.00"),
            ("batch job, local files", f"{batch:.1f}", f"{batch / bare:.2f}"),
        ],
    )


if __name__ == "__main__":
    main()
