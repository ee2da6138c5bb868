"""All that is compared on one machine, each part short, and one table: `make bench`.

python -m tests.benchmarks.bench [serving gateway throughput scaling explaining pacs training]

Both sides of each row were measured in the same run, in turn. It takes about 15 minutes on two
cores. Each part has a command of its own, which measures longer: `python -m tests.benchmarks.PART`.
Exit code 1 where a part has failed; the others are measured all the same.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from sonode.console import say
from tests.benchmarks.machine import Compared, table

PARTS = {
    "serving": "--kinds PNG --clients 1,16 --rounds 2 --seconds 3",
    "gateway": "--rounds 3 --seconds 2",
    "throughput": "--images 200 --rounds 2",
    "scaling": "--images 100 --rounds 1",
    "explaining": "--rounds 12",
    "pacs": "--images 40 --networks resnet18@256",
    "training": "--patients 40 --epochs 2",
}


def measure(part: str) -> list[Compared]:
    """Run a part as its command does; what it compares."""
    sys.argv = [part, *PARTS[part].split()]
    found: list[Compared] = importlib.import_module(f"tests.benchmarks.{part}").main()
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of {' '.join(PARTS)}; else all of them")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part is called {' '.join(unknown)}; there are {' '.join(PARTS)}")
    rows, failed = [], []
    began = time.monotonic()
    for part in parts:
        say(f"{part} {PARTS[part]} ...")
        # A process for each: what one leaves in memory costs the next one nothing.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            try:
                found = process.submit(measure, part).result()
            except (Exception, SystemExit) as error:  # of any kind: the others are measured
                found = [("failed", f"{type(error).__name__}: {error}", "")]
                failed.append(part)
        rows += [(part, *row) for row in found]
    minutes = (time.monotonic() - began) / 60
    table(f"compared in {minutes:.0f} minutes", ("part", "what", "found", "goal"), rows)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
