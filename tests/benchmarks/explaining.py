"""What heat maps cost beside the score: the same rows with and without, in turn, in one process.

python -m tests.benchmarks.explaining [--architecture resnet50] [--engine eager] [--slow]

One row at a time and batches of 16, as a server hands them over. CPU time tells on a machine with
other work, too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from archives.packing.loader import load_archive
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.machine import Compared, table
from tests.benchmarks.throughput import BATCH, make_archive

ASKED = ("", "gradcam", "gradcam+full_frame")
SLOW = ("guided_gradcam", "occlusion", "integrated_gradients")


def main() -> list[Compared]:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--frames", type=Path, default=BUSI, help="folder in the layout of BUSI")
    parser.add_argument("--slow", action="store_true", help="the methods that take seconds, too")
    arguments = parser.parse_args()
    what, images = frames(arguments.frames)
    slow = SLOW if arguments.slow else ()
    kinds = [(together, asked) for together in (1, BATCH) for asked in ASKED]
    kinds += [(1, asked) for asked in slow]
    milliseconds: dict[tuple[int, str], list[float]] = {kind: [] for kind in kinds}
    with (
        tempfile.TemporaryDirectory(prefix="sonode-bench-") as name,
        load_archive(
            make_archive(Path(name), arguments.architecture), {"engine": arguments.engine}
        ) as loaded,
    ):
        rows = [
            {"image": data, "roi": _middle(*image.size)}
            for data, image in zip(encoded(images, "PNG"), images, strict=True)
        ]

        def measure(together: int, asked: str, rows: list[dict[str, object]]) -> None:
            extra = {"explain": asked} if asked else {}
            started = time.process_time()
            for start in range(0, len(rows), together):
                outcomes = loaded.score([{**row, **extra} for row in rows[start:][:together]])
                assert {outcome.status for outcome in outcomes} == {200}
            spent = 1000 * (time.process_time() - started)
            milliseconds[together, asked].append(spent / len(rows))

        for number in range(arguments.rounds + 1):
            start = number * BATCH % (len(rows) - BATCH + 1)
            # In turn, so that whatever else the machine does meets all of them.
            for together in (1, BATCH):
                for asked in ASKED:
                    measure(together, asked, rows[start : start + BATCH])
        for its in milliseconds.values():
            del its[:1]  # warm
        for asked in slow:
            measure(1, asked, rows[:1])
        engine = loaded.engine
    found = {kind: statistics.median(its) for kind, its in milliseconds.items()}
    table(
        f"{arguments.architecture}, {engine}, {torch.get_num_threads()} threads, {what} PNGs",
        ("rows together", "explanation", "CPU ms a row, both heads", "of the score alone"),
        [
            (str(together), asked or "none", f"{ms:.1f}", f"{ms / found[together, '']:.2f}")
            for (together, asked), ms in found.items()
        ],
    )
    return [
        (
            f"CPU time with Grad-CAM of both heads, of that without, {together} at once",
            f"{found[together, 'gradcam'] / found[together, '']:.2f}",
            goal,
        )
        for together, goal in ((1, "1.05"), (BATCH, "1.1"))
    ]


def _middle(width: int, height: int) -> str:
    return f"{width // 4},{height // 4},{3 * width // 4},{3 * height // 4}"


if __name__ == "__main__":
    main()
