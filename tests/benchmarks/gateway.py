"""What the gateway costs: the same TorchServe asked directly and through it, in turn, in one run.

python -m tests.benchmarks.gateway [--architecture resnet18] [--rounds N] [--seconds S] [--out FILE]

`nothing` is an archive whose handler only counts bytes: what is left is TorchServe and the gateway.
Clients, gateway and TorchServe share the cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.supervisor import Supervisor
from archives.packing.members import file_sha256
from archives.serving.serve_with_gateway import settings_of
from archives.state.journal import Journal, Release
from archives.state.tokens_and_keys import add_client
from archives.torchserve.java import claim_ports
from archives.torchserve.node import TorchServeNode
from sonode.console import say
from tests.archives.serving.test_serve import ECHO, write_archive
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.load import Load, drive
from tests.benchmarks.machine import Compared, table
from tests.benchmarks.servers import await_workers
from tests.benchmarks.throughput import make_archive

CONCURRENCY = (1, 16)
WAYS = ("direct", "gateway")


def measure(
    archive: Path, folder: Path, bodies: Sequence[bytes], rounds: int, seconds: float
) -> dict[int, dict[str, list[Load]]]:
    """By concurrency and way, a load per round."""
    port = claim_ports({"gateway": None})["gateway"]
    state = folder / "state"
    client = add_client(state, "bench")
    release = Release("1.0", archive.name, file_sha256(archive))
    journal = Journal(state)
    with journal.lock():
        journal.append("deployed", rollout=None, model="m", stable=release, serves=[release])
    with TorchServeNode(archive.parent, {"m": archive.name}, folder / "node") as node:
        await_workers(node, node.plan.workers)
        with Supervisor([settings_of(node)], state, GatewaySettings(port=port, rate=1_000_000)):
            found: dict[int, dict[str, list[Load]]] = {}
            for concurrency in CONCURRENCY:
                found[concurrency] = {way: [] for way in WAYS}
                # The first round warms up. In turn, so that what else the machine does meets both.
                for number in range(rounds + 1):
                    for way in WAYS if number % 2 else reversed(WAYS):
                        base = node.inference_url if way == "direct" else f"http://127.0.0.1:{port}"
                        token = node.token() if way == "direct" else client
                        load = drive(
                            f"{base}/predictions/m",
                            bodies,
                            concurrency=concurrency,
                            seconds=seconds,
                            headers={"Authorization": f"Bearer {token}", "X-Study-Id": "bench"},
                        )
                        if number:
                            found[concurrency][way].append(load)
            return found


def main() -> list[Compared]:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--frames", type=Path, default=BUSI, help="images in the layout of BUSI")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    what, images = frames(arguments.frames)
    bodies = encoded(images, "PNG")
    size = sum(map(len, bodies)) / len(bodies) / 1000
    say(f"{len(bodies)} frames of {what} as PNG, {size:.0f} kB each")
    rows, figures, compared = [], [], []
    for name in ("nothing", arguments.architecture):
        with tempfile.TemporaryDirectory(prefix="sonode-bench-") as made:
            folder = Path(made)
            if name == "nothing":
                archive = folder / "m.mar"
                write_archive(archive, "m", ECHO)
            else:
                archive = make_archive(folder, name)
            found = measure(archive, folder, bodies, arguments.rounds, arguments.seconds)
        for concurrency, by_way in found.items():
            p50 = {way: statistics.median(it.p50_ms for it in by_way[way]) for way in WAYS}
            rate = {way: statistics.median(it.per_second for it in by_way[way]) for way in WAYS}
            added = p50["gateway"] - p50["direct"]
            lost = 100 * (1 - rate["gateway"] / rate["direct"])
            compared += [
                (f"{name}, {concurrency} clients: ms added", f"{added:+.2f}", ""),
                (f"{name}, {concurrency} clients: requests/s lost", f"{lost:+.1f} %", ""),
            ]
            figures.append(
                {"model": name, "concurrency": concurrency, "p50_ms": p50, "per_second": rate}
            )
            rows.append(
                (
                    *(name, str(concurrency), f"{p50['direct']:.2f}", f"{p50['gateway']:.2f}"),
                    *(f"{added:+.2f}", f"{rate['direct']:.1f}", f"{rate['gateway']:.1f}"),
                    f"{lost:+.1f} %",
                )
            )
    table(
        "median of the rounds",
        (
            *("model", "clients", "p50 ms direct", "gateway", "added"),
            *("requests/s direct", "gateway", "lost"),
        ),
        rows,
    )
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
    return compared


if __name__ == "__main__":
    main()
