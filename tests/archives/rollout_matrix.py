"""Rollouts between two real nodes under load: bad versions, and kills at each step.

`test_rollout_live.py` runs the short ones, `make rollouts` all of it, with a table.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from archives.asgi.node import AsgiNode
from archives.state.journal import Entry
from archives.torchserve.key_file import ask
from tests.archives import bad_versions as bad
from tests.archives.bad_versions import append, nothing
from tests.archives.rolling import (
    CLIENT_TIMEOUT_S,
    QUICK,
    Load,
    Site,
    miscounted,
    sonode_process,
    split_by_step,
)
from tests.archives.two_nodes import Cluster
from tests.conftest import encode
from tests.loopback import LOOPBACK

RATE = 12.0  # requests a second, for two cores that also run all workers
FOUND_WITHIN = 220
"""Requests of it within which 99 % of versions that fail 10 % of their tries are found, in a canary
of 50 % of this load: simulated by `tests/benchmarks/guards.py`, stated in docs/benchmarks.md."""
TIME_LIMIT_S = 600.0


@dataclass(frozen=True)
class Scenario:
    """A rollout in which something is wrong, or happens at each step."""

    name: str
    change: Callable[[Path], None] = nothing
    at_step: Callable[[Cluster, str], None] | None = None
    """What happens as each step begins."""
    all_along: Callable[[Cluster], None] | None = None
    """What happens every second."""
    guards: tuple[str, ...] = ()
    """Any of which sends it back (by its first word); none: it serves in the end."""
    kill_command: bool = False
    policy: Mapping[str, object] = field(default_factory=dict)
    failed_at_most: int = 0
    """Requests of clients that may fail: those on a connection of a process that is killed, or that
    two nodes with a bad version have failed."""
    patience_s: float = CLIENT_TIMEOUT_S
    """After which a client gives up."""
    exposed_at_most: int = 0
    """Requests that a bad version may have answered by the time that it is sent back."""


@dataclass(frozen=True)
class Outcome:
    """A line of the table."""

    scenario: Scenario
    code: int
    sent: int
    failed: int
    unanswered: int
    exposed: int
    guard: str
    at: str
    back_s: float | None
    """From the guard's word to the last unregistration."""
    seconds: float
    split: dict[str, tuple[int, int]]
    said: str
    broken: list[str]
    """What clients met with where nothing came: seconds after the start, and why."""
    miscounted: list[str]
    """See `rolling.miscounted`."""

    def faults(self) -> list[str]:
        """What is not as it should be."""
        scenario, found = self.scenario, []
        if self.code != (1 if scenario.guards else 0):
            found.append(f"exit code {self.code}")
        if scenario.guards and self.guard.split(" ")[0] not in scenario.guards:
            found.append(f"sent back by {self.guard or 'nobody'}")
        if self.failed + self.unanswered > scenario.failed_at_most:
            found.append(f"{self.failed} failed, {self.unanswered} unanswered")
        if scenario.guards and self.exposed > scenario.exposed_at_most:
            found.append(f"{self.exposed} exposed")
        return found + self.miscounted


def run(cluster: Cluster, scenario: Scenario) -> Outcome:
    """Roll a new version out while clients send, and see what becomes of it."""
    site, random_ = cluster.site, np.random.default_rng(7)
    cluster.settle()
    archive = cluster.release(cluster.next_version(), scenario.change)
    words = site.start_words(archive, QUICK | dict(scenario.policy))
    first = len(site.entries())
    images = [encode(random_.integers(0, 256, (80, 120), dtype=np.uint8)) for _ in range(32)]
    began = time.monotonic()
    ended = threading.Event()
    clients = Load(
        *(site.url, site.token, images),
        rate=RATE,
        patience_s=scenario.patience_s,
        both_protocols=cluster.kind is AsgiNode,
    )
    with clients as load, _beside(cluster, scenario, ended):
        with (site.state / "rollout.log").open("ab") as log:
            command = sonode_process(words, log)
            seen: set[str] = set()
            try:
                while command.poll() is None:
                    assert time.monotonic() - began < TIME_LIMIT_S, site.entries()[-3:]
                    steps = [str(it.facts["step"]) for it in site.entries()[first:]
                             if "step" in it.facts]  # fmt: skip
                    if steps and steps[-1] not in seen:
                        seen.add(steps[-1])
                        if scenario.at_step:
                            time.sleep(0.5)
                            scenario.at_step(cluster, steps[-1])
                        if scenario.kill_command:
                            time.sleep(0.5)
                            command.kill()
                            command.wait()
                            if cluster.desired().rollout:
                                command = sonode_process(words, log)
                    time.sleep(0.05)
            finally:
                command.kill()
                command.wait()
        time.sleep(0.5)
        ended.set()
    entries = site.entries()[first:]
    return _outcome(site, scenario, command, load, entries, time.monotonic() - began)


@contextmanager
def _beside(cluster: Cluster, scenario: Scenario, ended: threading.Event) -> Iterator[None]:
    def act() -> None:
        while scenario.all_along and not ended.wait(1.0):
            scenario.all_along(cluster)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _outcome(
    site: Site,
    scenario: Scenario,
    command: subprocess.Popen[bytes],
    load: Load,
    entries: list[Entry],
    seconds: float,
) -> Outcome:
    statuses = load.statuses()
    back = next((entry for entry in entries if entry.event == "rollback"), None)
    new = str(entries[0].facts["candidate"]["version"])
    last = entries[-1]
    back_s = last.time - back.time if back and last.event == "rolled_back" else None
    code = command.returncode
    if scenario.kill_command:  # the last command may have been killed after its last entry
        code = {"done": 0, "rolled_back": 1}.get(last.event, -1)
    return Outcome(
        scenario=scenario,
        code=code,
        sent=sum(statuses.values()),
        failed=sum(n for status, n in statuses.items() if status not in (0, 200)),
        unanswered=statuses[0],
        exposed=load.versions()[new],
        guard=str(back.facts["guard"]) if back else "",
        at=str(back.facts["at"]) if back else "",
        back_s=back_s,
        seconds=seconds,
        split=split_by_step(site, load, entries, new),
        said=str(back.facts["said"]) if back else "",
        broken=[
            f"{it.t - entries[0].time:.1f} s: {it.status} {it.what} after {it.ms:.0f} ms"
            for it in load.answers
            if it.status != 200
        ],
        miscounted=miscounted(site, load.answers),
    )


def renew_tokens(cluster: Cluster) -> None:
    """Void the token that the gateway sends, as an expiry does; every six seconds."""
    time.sleep(5)
    for node in cluster.nodes:
        keys = json.loads(node.key_file.read_text())
        with suppress(httpx.TransportError):  # busy: the next time
            ask("GET", f"{node.management_url}/token?type=inference", keys["API"]["key"])


def send_broken(cluster: Cluster) -> None:
    """As a client does whose pictures no version can read, many of one study, and a form."""
    site = cluster.site
    broken = {"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Type": "image/png"}
    for headers in (*broken, {"Content-Type": "application/x-www-form-urlencoded"}):
        told = headers | {"Authorization": f"Bearer {site.token}", "X-Study-Id": "broken"}
        with suppress(httpx.TransportError):
            answer = LOOPBACK.post(site.url, content=b"no picture", headers=told)
            assert answer.status_code in (400, 415, 422), answer.status_code


TURN = Path(tempfile.gettempdir()) / f"sonode-turn-{os.getpid()}"
HANG = TURN.with_name(f"sonode-hang-{os.getpid()}")


def turn_bad(cluster: Cluster, step: str) -> None:
    """In the canary, where clients meet it."""
    if step.startswith("canary"):
        TURN.touch()


def hang(cluster: Cluster, step: str) -> None:
    """Once it answers all."""
    if step == "canary 100 %":
        HANG.touch()


def kill_worker(cluster: Cluster, step: str) -> None:
    desired = cluster.desired()
    release = random.choice([it for it in (desired.stable, desired.candidate) if it])
    cluster.kill_worker(release.version)


def kill_node(cluster: Cluster, step: str) -> None:
    if step in ("register", "shadow", "canary 100 %", "keep"):
        cluster.kill_node(1)
        time.sleep(2)
        cluster.start_node(1)
        cluster.settle()


def kill_gateway(cluster: Cluster, step: str) -> None:
    cluster.kill_supervisor()


def kill_nginx(cluster: Cluster, step: str) -> None:
    cluster.kill_nginx()


def under_way(share: float) -> int:
    """Requests of a version with that share which come while nobody counts them.

    One second from the step's entry until it turns bad; and two, on a machine that is busy, from
    the request that is enough: its row's way through the log, the guards' next look (a quarter of a
    second) and the journal's entry that takes the version back.
    """
    return math.ceil(RATE * share * 3)


SOON = {"canary": [50, 100]}
TURNS_BAD = SOON | {"min_requests": 400}
FULL = {"canary": [20, 50, 100], "min_requests": 20, "step_timeout_s": 300}
ESSENTIAL = (
    Scenario("v1 to v2"),
    Scenario("fails 5 % of the time", partial(append, bad.FAILS_NOW_AND_THEN),
             guards=("errors", "failing"), policy={"min_requests": 400}),
)  # fmt: skip
SCENARIOS = (
    *ESSENTIAL,
    Scenario("v1 to v2 beside a client that sends broken bodies", policy=FULL,
             all_along=send_broken),
    Scenario("slow", partial(append, bad.SLOW), guards=("slow",), policy={"min_requests": 400}),
    Scenario("wrong scores", bad.wrong_scores, guards=("flips", "difference")),
    Scenario("its worker dies 5 % of the time", partial(append, bad.DIES_NOW_AND_THEN),
             guards=("errors", "failing", "slow"), policy={"min_requests": 400}),
    Scenario("turns bad in the canary, failing 10 %",
             partial(append, bad.FAILS_ONCE_THERE_IS.format(file=str(TURN))), at_step=turn_bad,
             guards=("errors", "failing", "unanswered"),
             policy=TURNS_BAD, failed_at_most=10,
             exposed_at_most=FOUND_WITHIN + under_way(0.5)),
    Scenario("fails its goldens", partial(bad.shift_goldens, change=lambda p: p / 2),
             guards=("verify",)),
    Scenario("does not load", partial(append, bad.DOES_NOT_LOAD), guards=("verify",)),
    Scenario("does not load on a node", partial(append, bad.DOES_NOT_LOAD_ON_A_NODE),
             guards=("register",)),
    Scenario("hangs once it answers all",
             partial(append, bad.HANGS_ONCE_THERE_IS.format(file=str(HANG))), at_step=hang,
             guards=("errors", "unanswered"), policy=SOON | {"min_requests": 60},
             patience_s=3.0, failed_at_most=60, exposed_at_most=150),
)  # fmt: skip
KILLS = (
    Scenario("kill -9 of the command at each step, tokens voided every six seconds",
             kill_command=True, all_along=renew_tokens, policy=SOON),
    Scenario("kill -9 of a worker at each step", at_step=kill_worker, policy=SOON),
    Scenario("kill -9 of a node at four steps", at_step=kill_node,
             policy=SOON | {"step_timeout_s": 200}, failed_at_most=8),
    Scenario("kill -9 of the supervisor at each step", at_step=kill_gateway, policy=SOON),
    Scenario("kill -9 of nginx's master at each step", at_step=kill_nginx, policy=SOON,
             failed_at_most=8),
)  # fmt: skip


HEADER = (
    "| scenario | sent | failed | unanswered | exposed | guard | at | time to roll back, s | "
    "all, s | as it should be |\n|---|---|---|---|---|---|---|---|---|---|"
)


def line(it: Outcome) -> str:
    back = "" if it.back_s is None else f"{it.back_s:.1f}"
    faults = "; ".join(it.faults()) or "yes"
    return (
        f"| {it.scenario.name} | {it.sent} | {it.failed} | {it.unanswered} | {it.exposed} | "
        f"{it.guard} | {it.at} | {back} | {it.seconds:.0f} | {faults} |"
    )
