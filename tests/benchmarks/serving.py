"""One network behind four servers on one machine in one run, and the limit of that machine.

python -m tests.benchmarks.serving [--only bare,archive,asgi,litserve,stock]
    [--kinds PNG,JPEG,DICOM] [--clients 1,8,16,32] [--rounds N] [--seconds S] [--frames FOLDER]
    [--out F]

* bare: decoder and engine in a loop, no server. With all cores at work all the time,
  images/s <= cores / (CPU seconds to decode an image + CPU seconds of its forward pass);
* stock: TorchServe's own image handler around the same network in eager torch, TorchServe's
  defaults (a worker per core, no batching);
* litserve: the archive's service under LitServe, same engine, same cores, batching on;
* archive: `sonode serve` as it is shipped;
* asgi: `sonode serve --server asgi`.

`--kinds PNG --rounds 5 --seconds 3` measures all of them in 8 minutes on two cores.

All servers are there from the start; those that are not asked are stopped (SIGSTOP). In a round
each is asked in turn by so many clients, then by more, so that what else the machine does meets
all; the next round begins with another server. Each first gets some seconds of load, since Java
compiles what it runs often. Clients run on the same cores; what they cost is in the table. What a
single client waits beyond the bare loop's decoding and forward pass (medians, on as many cores as
a worker has) is the added latency. In the tables: medians of the rounds, with the lowest and the
highest; CPU ms of the server and of the client, an image; images/s as multiples of the limit's and
of the others' in the same round.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from archives.packing.loader import load_archive
from archives.torchserve.worker_plan import plan
from sonode.console import say
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.load import drive
from tests.benchmarks.machine import Compared, table
from tests.benchmarks.servers import CORES, Server, serving
from tests.benchmarks.throughput import make_archive

SERVERS = ("bare", "stock", "litserve", "archive", "asgi")
KINDS = ("PNG", "JPEG", "DICOM")
CONCURRENCY = (1, 8, 16, 32)
WARM = 4
"""Times a load's seconds before a server's first measurement; once for another kind of file."""

Figures = dict[str, Any]
Key = tuple[str, int, str]
"""Kind of file, clients, server."""


def bare(service: Any, bodies: Sequence[bytes]) -> Figures:
    """CPU milliseconds (means) and latency (median of wall milliseconds) of one image."""
    walls, decode_cpu, forward_cpu = [], 0.0, 0.0
    for body in bodies:
        started, cpu = time.perf_counter(), time.process_time()
        prepared = service.preprocess({"body": body}, {})
        decoded_cpu = time.process_time()
        service.inference([prepared])
        walls.append(time.perf_counter() - started)
        decode_cpu += decoded_cpu - cpu
        forward_cpu += time.process_time() - decoded_cpu
    return {
        "decode_cpu_ms": 1000 * decode_cpu / len(bodies),
        "forward_cpu_ms": 1000 * forward_cpu / len(bodies),
        "latency_ms": 1000 * statistics.median(walls),
        "limit_per_second": CORES * len(bodies) / (decode_cpu + forward_cpu),
    }


def ask(server: Server, bodies: Sequence[bytes], concurrency: int, seconds: float) -> Figures:
    """What a load meets with."""
    before = server.cpu_seconds()
    load = drive(
        server.url, bodies, concurrency=concurrency, seconds=seconds, headers=server.headers
    )
    spent = 1000 * (server.cpu_seconds() - before) / load.requests
    return vars(load) | {"server_cpu_ms": spent}


def measure(
    only: Sequence[str],
    files: dict[str, list[bytes]],
    archive: Path,
    folder: Path,
    clients: Sequence[int],
    rounds: int,
    seconds: float,
) -> tuple[dict[Key, list[Figures]], list[Figures]]:
    """What was found of each round, and a line about each server."""
    found: dict[Key, list[Figures]] = defaultdict(list)
    about = []
    with ExitStack() as running:
        servers: list[Server] = []
        asleep: dict[str, ExitStack] = {}
        for name in only:
            if name == "bare":
                continue
            server = running.enter_context(serving(name, archive, folder))
            say(f"{name}: all workers are ready after {server.ready_s:.1f} s")
            servers.append(server)
            asleep[name] = running.enter_context(ExitStack())
            asleep[name].enter_context(server.asleep())
        loaded = "bare" in only and running.enter_context(
            load_archive(archive, {"threads": plan().threads})
        )
        for number, (kind, bodies) in enumerate(files.items()):
            # Stock TorchServe cannot read DICOM.
            able = [it for it in servers if (it.name, kind) != ("stock", "DICOM")]
            for server in able:
                asleep[server.name].close()
                ask(server, bodies, 8, seconds if number else WARM * seconds)
                asleep[server.name].enter_context(server.asleep())
            if loaded:
                bare(loaded.service, bodies)
            for turn in range(rounds):
                first = turn % max(1, len(able))
                if loaded:
                    found[kind, 1, "bare"].append(bare(loaded.service, bodies))
                for concurrency in clients:
                    for server in able[first:] + able[:first]:
                        asleep[server.name].close()
                        figures = ask(server, bodies, concurrency, seconds)
                        asleep[server.name].enter_context(server.asleep())
                        found[kind, concurrency, server.name].append(figures)
                say(f"{kind}: round {turn + 1} of {rounds}")
        for server in servers:
            facts = {"ready_s": server.ready_s, "loading_s": server.loading_s}
            about.append({"server": server.name, "memory": server.memory()} | facts)
    return found, about


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Their median, and between what they lie."""
    if not values:
        return "-"
    low, middle, high = (format(it(values), form) for it in (min, statistics.median, max))
    return middle if len(values) == 1 else f"{middle} ({low}-{high})"


def over(rates: Sequence[float], others: Sequence[float]) -> str:
    """How many times as much, round by round."""
    return spread([one / two for one, two in zip(rates, others, strict=False)])


def ordered(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """By the number of clients, then by server."""
    return sorted(rows, key=lambda row: (int(row[0]), SERVERS.index(row[1])))


def report(found: dict[Key, list[Figures]], about: list[Figures]) -> None:
    """The tables for people."""
    for kind in dict.fromkeys(key[0] for key in found):
        limits = found.get((kind, 1, "bare"), [])
        if limits:
            middle = {key: statistics.median(it[key] for it in limits) for key in limits[0]}
            say(
                f"{kind}: decode {middle['decode_cpu_ms']:.1f} ms, forward "
                f"{middle['forward_cpu_ms']:.1f} ms of a core; "
                f"limit {CORES} cores / their sum = {middle['limit_per_second']:.1f}/s; "
                f"one after the other {middle['latency_ms']:.1f} ms (median)"
            )
        speeds, ratios = [], []
        for (of, clients, name), its in found.items():
            if of != kind or name == "bare":
                continue
            middle = {key: statistics.median(it[key] for it in its) for key in its[0]}
            head = (str(clients), name)
            speeds.append(
                (
                    *head,
                    spread([it["per_second"] for it in its], ".1f"),
                    f"{middle['p50_ms']:.1f}",
                    f"{middle['p95_ms']:.1f}",
                    added(its, limits) if clients == 1 else "-",
                    f"{middle['server_cpu_ms']:.1f}+{middle['client_cpu_ms']:.1f}",
                )
            )
            rates = [it["per_second"] for it in its]
            most = [limit["limit_per_second"] for limit in limits]
            others = [
                [it["per_second"] for it in found.get((kind, clients, other), [])]
                for other in SERVERS[1:4]
            ]
            ratios.append((*head, *(over(rates, other) for other in (most, *others))))
        title = f"{kind}: ResNet50, 256 x 256, {CORES} cores"
        heads = ("images/s", "p50 ms", "p95 ms", "added ms", "CPU ms")
        table(title, ("clients", "server", *heads), ordered(speeds))
        heads = tuple(f"x {other}" for other in ("limit", *SERVERS[1:4]))
        table(
            "images/s of others in the same round", ("clients", "server", *heads), ordered(ratios)
        )
    table(
        "from start to ready, seconds; memory of each process alone, MiB",
        ("server", "ready", "of it a worker's start", "memory"),
        [
            (
                *(it["server"], f"{it['ready_s']:.1f}"),
                "-" if it["loading_s"] is None else f"{it['loading_s']:.1f}",
                ", ".join(f"{size:.0f} {what}" for size, what in it["memory"]),
            )
            for it in about
        ],
    )


def added(its: Sequence[Figures], limits: Sequence[Figures]) -> str:
    """What a single client waits beyond the bare loop, round by round."""
    pairs = zip(its, limits, strict=False)
    return spread([it["p50_ms"] - limit["latency_ms"] for it, limit in pairs], ".1f")


def compared(found: dict[Key, list[Figures]]) -> list[Compared]:
    """What the goals speak of, of PNGs: images/s are a server's best with any number of clients."""
    limits = found.get(("PNG", 1, "bare"), [])
    best = {"limit": [it["limit_per_second"] for it in limits]}
    for name in SERVERS[1:]:
        loads = [its for (kind, _, of), its in found.items() if (kind, of) == ("PNG", name)]
        best[name] = [max(it["per_second"] for it in its) for its in zip(*loads, strict=True)]
    pairs = (("archive", "stock", "6"), ("archive", "limit", "0.95"))
    pairs += (("asgi", "archive", "1"), ("asgi", "limit", "0.95"))
    rows = [
        (f"images/s, {one}, of {two}", over(best[one], best[two]), goal) for one, two, goal in pairs
    ]
    for name, goal in (("archive", "5"), ("asgi", "2")):
        its = found.get(("PNG", 1, name), [])
        rows.append((f"1 client, {name}, ms beyond the bare loop", added(its, limits), goal))
    return rows


def main() -> list[Compared]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SERVERS), help="some of " + ", ".join(SERVERS))
    parser.add_argument("--kinds", default=",".join(KINDS), type=str.upper)
    parser.add_argument("--frames", type=Path, default=BUSI, help="images in the layout of BUSI")
    parser.add_argument("--clients", default=",".join(map(str, CONCURRENCY)), help="at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else it leaves servers behind
    what, images = frames(arguments.frames)
    files = {kind: encoded(images, kind) for kind in arguments.kinds.split(",")}
    for kind, bodies in files.items():
        size = sum(map(len, bodies)) / len(bodies) / 1000
        say(f"{len(bodies)} frames of {what} as {kind}, {size:.0f} kB each")
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        archive = make_archive(Path(name), "resnet50")
        found, about = measure(
            arguments.only.split(","),
            files,
            archive,
            Path(name),
            [int(it) for it in arguments.clients.split(",")],
            arguments.rounds,
            arguments.seconds,
        )
    report(found, about)
    if arguments.out:
        lines = [
            {"kind": kind, "clients": clients, "server": server, "round": number} | figures
            for (kind, clients, server), its in found.items()
            for number, figures in enumerate(its)
        ]
        arguments.out.write_text(json.dumps({"lines": lines, "servers": about}, indent=2) + "\n")
    return compared(found)


if __name__ == "__main__":
    main()
