"""Many nights into one OUT, each with `--since OUT`: what a night costs when hundreds came before.

python -m tests.benchmarks.nights [--nights 120] [--rows 500]

The worst case: each night's manifest has all images of the night before, and one more, so that OUT
holds a version of each image for each night. The archive is a stub. Beside it: the same night with
`--since` of the night before alone, which holds all that can be reused, and what `--dry-run` takes.
CPU time, in one process, whose memory is that of all nights so far.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from batch import layout, plan, run
from batch.results import schema
from sonode.console import progress
from tests.benchmarks.machine import table
from tests.benchmarks.memory import Stub, write_manifest


def night(folder: Path, number: int, rows: int, since: str | None, out: str) -> float:
    """Score it; CPU seconds."""
    manifest = folder / "manifest.parquet"
    write_manifest(manifest, rows + number)
    day = str(date(2026, 1, 1) + timedelta(days=number))
    begin = time.process_time()
    summary = run.score(
        str(manifest), out, Stub(), explain=None, progress=progress, since=since, date=day
    )
    assert summary.carried == (0 if since is None else rows + number - 1)
    return time.process_time() - begin


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=120)
    parser.add_argument("--rows", type=int, default=500)
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        folder, out = Path(name), f"{name}/out"
        (folder / "image").write_bytes(b"p=0.3")
        for number in range(given.nights):
            whole = night(folder, number, given.rows, out if number else None, out)
            if number + 1 not in (2, 10, 30, given.nights // 2, given.nights):
                continue
            before = str(date(2026, 1, 1) + timedelta(days=number - 1))
            last = f"{out}/{layout.partition(before, Stub.name, Stub.version)}"
            alone = night(folder, number, given.rows, last, f"{name}/other-{number}")
            begin = time.process_time()
            parts = len(schema.parts_in(out))
            listing = time.process_time() - begin
            begin = time.process_time()
            plan.plan(
                str(folder / "manifest.parquet"), f"{name}/none", Stub(), explain=None, since=out
            )
            planning = time.process_time() - begin
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            found.append((number + 1, whole, alone, planning, parts, listing, peak))
    table(
        f"{given.rows} images and one more each night",
        (
            *("night", "CPU s with --since OUT", "with the night before", "to plan", "parts"),
            *("to list them, ms", "memory at most, MiB"),
        ),
        [
            (f"{n}", f"{a:.2f}", f"{b:.2f}", f"{p:.2f}", f"{k}", f"{1000 * s:.1f}", f"{m:.0f}")
            for n, a, b, p, k, s, m in found
        ],
    )


if __name__ == "__main__":
    main()
