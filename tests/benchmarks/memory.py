"""Manifests of 1,000 to 1,000,000 rows through a stub archive: memory, and when scoring begins.

python -m tests.benchmarks.memory [--rows 1000 1000000]

Each size in a process of its own. All rows name one small local file, each with a RoI of its own;
the archive decodes nothing. What is left is the job itself, whose rows per second are the most
that any accelerator would be fed with. Exit code 1 where the largest manifest takes more memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch import run
from sonode.console import progress, say
from tests.batch.conftest import FakeArchive
from tests.benchmarks.machine import table

SIZES = (1_000, 10_000, 100_000, 1_000_000)
# MiB from the smallest to the largest. A row that is kept would show as hundreds; 8 bytes of each
# are (its hash, while duplicates are looked for), and the allocators' own slack.
BOUND = 64.0
# KiB of each study and patient, whose scores are added up at the end; there are 4 for 3 rows here.
OF_A_UNIT = 0.3


class Stub(FakeArchive):
    """Keeps nothing, and knows when it was first called."""

    first: float | None = None

    def score_prepared(self, prepared: Sequence[Any]) -> list[tuple[int, dict[str, Any]]]:
        """Score as the fake does."""
        self.first = self.first or time.perf_counter()
        return [self._score(row) for row in prepared]


def write_manifest(path: Path, rows: int) -> None:
    """`rows` RoIs of one image, no two the same, with ids as a hospital has them."""
    begins, ends = np.triu_indices(100, 1)  # 0 <= begin < end < 100
    with pq.ParquetWriter(path, _chunk(0, 0, begins, ends).schema) as writer:
        for start in range(0, rows, 100_000):
            writer.write_table(_chunk(start, min(start + 100_000, rows), begins, ends))


def _chunk(start: int, end: int, begins: Any, ends: Any) -> pa.Table:
    number = np.arange(start, end)
    x, y = number % len(begins), number // len(begins)
    return pa.table(
        {
            "image_uri": pa.array(["image"] * len(number), pa.string()),
            "roi_x_min": begins[x],
            "roi_y_min": begins[y],
            "roi_x_max": ends[x],
            "roi_y_max": ends[y],
            "study_id": pa.array([f"study-{n:012d}" for n in number], pa.string()),
            "patient_id": pa.array([f"patient-{n // 3:012d}" for n in number], pa.string()),
        }
    )


def score(manifest: str, out: str) -> dict[str, float]:
    """Score it, in this process, and say what that took."""
    archive = Stub()
    begin = time.perf_counter()
    summary = run.score(manifest, out, archive, explain=None, progress=progress)
    assert summary.by_status["failed"] == 0 and archive.first is not None
    status = Path("/proc/self/status").read_text()
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
    return {
        "peak": int(peak) / 1024,
        "first": archive.first - begin,
        "rate": summary.images_per_second,
        "all": time.perf_counter() - begin,
    }


def main() -> None:
    """Measure, print the table; exit 1 where memory grows with the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        folder = Path(name)
        (folder / "image").write_bytes(b"p=0.25")
        for rows in arguments.rows:
            manifest = folder / f"{rows}.parquet"
            write_manifest(manifest, rows)
            with multiprocessing.get_context("spawn").Pool(1) as process:
                found[rows] = process.apply(score, (str(manifest), str(folder / f"out-{rows}")))
            say(f"{rows} rows: {found[rows]['peak']:.0f} MiB")
    table(
        "a stub archive, local files",
        ("manifest rows", "peak RSS MiB", "first score after s", "rows/s", "all of it s"),
        [
            (
                *(f"{rows:,}", f"{it['peak']:.0f}", f"{it['first']:.2f}"),
                *(f"{it['rate']:.0f}", f"{it['all']:.1f}"),
            )
            for rows, it in found.items()
        ],
    )
    grown = found[max(found)]["peak"] - found[min(found)]["peak"]
    sys.exit(grown > BOUND + OF_A_UNIT * max(found) * 4 / 3 / 1024)


if __name__ == "__main__":
    main()
