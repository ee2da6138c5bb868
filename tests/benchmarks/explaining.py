"""What heat maps cost beside the score: the same batches of 16 with and without, in one run.

python -m tests.benchmarks.explaining [--architecture resnet50] [--engine eager] [--slow]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from archives.packing.loader import load_archive
from sonode.console import table
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.throughput import BATCH, make_archive

ASKED = ("", "gradcam", "gradcam+full_frame")
SLOW = ("guided_gradcam", "occlusion", "integrated_gradients")


def main() -> None:
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
    milliseconds: dict[str, list[float]] = {asked: [] for asked in (*ASKED, *slow)}
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

        def measure(asked: str, rows: list[dict[str, object]]) -> None:
            extra = {"explain": asked} if asked else {}
            started = time.perf_counter()
            outcomes = loaded.score([{**row, **extra} for row in rows])
            milliseconds[asked].append(1000 * (time.perf_counter() - started) / len(rows))
            assert {outcome.status for outcome in outcomes} == {200}

        for number in range(arguments.rounds + 1):
            start = number * BATCH % (len(rows) - BATCH + 1)
            # In turn, so that whatever else the machine does meets all of them.
            for asked in ASKED:
                measure(asked, rows[start : start + BATCH])
        for asked in ASKED:
            del milliseconds[asked][0]  # warm
        for asked in slow:
            measure(asked, rows[:1])
        engine = loaded.engine
    plain = statistics.median(milliseconds[""])
    table(
        f"{arguments.architecture}, {engine}, {torch.get_num_threads()} threads, {what} PNGs",
        ("explanation", "ms a row, both heads", "of the score alone"),
        [
            (asked or "none", f"{median:.1f}", f"{median / plain:.2f}")
            for asked, median in ((a, statistics.median(m)) for a, m in milliseconds.items())
        ],
    )


def _middle(width: int, height: int) -> str:
    return f"{width // 4},{height // 4},{3 * width // 4},{3 * height // 4}"


if __name__ == "__main__":
    main()
