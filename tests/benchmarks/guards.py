"""How often a rollout's guards are wrong: whole rollouts with made-up clients, without servers.

`python -m tests.benchmarks.guards [--runs 400] [--bad 40]` prints for docs/benchmarks.md: of
identical versions how many are sent back, where failures come by study and by client; within how
many requests of the new version a bad one is; and the same with the traffic of `make rollouts`,
2,000 times. All of it is seeded.

A client sends studies of 1 to 20 pictures, one or two requests a second in all at each site. Broken
studies fail with every version, as does all that the broken client sends; a worker of either
version dies now and then, which fails a second of its first tries; large studies are slow.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from archives.judging.guards import Kind, Watch
from archives.judging.rollout_policy import Policy
from tests.archives.rolling import QUICK
from tests.archives.rollout_matrix import RATE, TURNS_BAD

OLD, NEW, HEADS = "1.0", "2.0", ("malignancy", "alnm")
STEPS: tuple[tuple[Kind, float], ...] = (
    ("shadow", 0), ("canary", 1), ("canary", 5), ("canary", 25), ("canary", 50),
    ("alone", 100), ("alone", 100),
)  # fmt: skip
ENDS = 10_800
"""Requests of all clients after which a step of identical versions ends: an hour, at 3 a second."""
MOST = 30_000
"""The same of a bad version, which then counts as not found."""
CLIENTS = 4
Row = dict[str, Any]


@dataclass
class Site:
    """Who sends what; rates are of studies, or by the second."""

    seed: int
    broken_studies: float = 0.005
    broken_client_s: float = 2.0
    """Seconds between requests of the client whose requests fail with any version; 0: none."""
    deaths_s: float = 300.0
    """Mean seconds between deaths of a worker, of each version."""
    errors: tuple[float, float] = (0.002, 0.002)
    """Of tries of the old and the new version, how many fail by chance, whatever the request."""
    slower: float = 1.0
    flips: float = 0.0
    """Of the pictures, how many the new version gives another label."""
    chance: random.Random = field(init=False)
    now: float = 1000.0
    number: int = 0
    _order: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._dies = {OLD: self._death(), NEW: self._death()}

    def _death(self) -> float:
        return self.now + self.chance.expovariate(1 / self.deaths_s)

    def requests(self) -> Iterator[Row]:
        """Of all clients, in order of time: pictures of studies, and the broken client's."""
        self.number += 1
        first = {
            "study": f"s{self.number}", "side": 1.0, "client": "c0", "broken": False, "slow": 1.0,
        }  # fmt: skip
        waiting: list[tuple[float, int, Row]] = [(self.now, 0, first)]
        next_study, broken_at = self.now, self.now if self.broken_client_s else math.inf
        while True:
            until = waiting[0][0] if waiting else math.inf
            if next_study <= min(until, broken_at):
                for t, row in self._study(next_study):
                    self._order += 1
                    heapq.heappush(waiting, (t, self._order, row))
                next_study += self.chance.expovariate(3 / 6.9)  # 3 pictures a second
            elif broken_at <= until:
                self.now, broken_at = broken_at, broken_at + self.broken_client_s
                self.number += 1
                yield {
                    "study": f"b{self.number}", "side": self.chance.random(), "client": "broken",
                    "broken": True, "slow": 1.0,
                }  # fmt: skip
            else:
                self.now, _, row = heapq.heappop(waiting)
                yield row

    def _study(self, t: float) -> list[tuple[float, Row]]:
        self.number += 1
        row = {
            "study": f"s{self.number}",
            "side": self.chance.random(),  # as the gateway's hash
            "client": f"c{self.number % 4}",
            "broken": self.chance.random() < self.broken_studies,
            "slow": 4.0 if self.chance.random() < 0.05 else 1.0,  # large pictures
        }
        many = 1 if self.chance.random() < 0.4 else self.chance.randint(2, 20)
        return [(t + 0.3 * picture, row) for picture in range(many)]

    def answer(self, request: Row, version: str, *, elsewhere: bool = False) -> Row:
        """What a try of a version comes to; `elsewhere`: on a node whose worker lives."""
        new = version == NEW
        if self.now > self._dies[version] + 1:
            self._dies[version] = self._death()
        dead = self.now > self._dies[version]
        fails = self.chance.random() < self.errors[new]
        status, code = (500, "inference_failed") if fails or request["broken"] else (200, "ok")
        if dead and not elsewhere:
            status, code = 507, "unavailable"
        ms = 40 * self.chance.lognormvariate(0, 0.4) * request["slow"]
        return {
            "t": self.now, "version": version, "status": status, "code": code, "seq": 1,
            "node": "a", "tries": 1, "arm": "stable", "client": request["client"],
            "study": request["study"], "ms": int(ms * (self.slower if new else 1)),
            "scores": "", "labels": "",
        }  # fmt: skip

    def score(self, row: Row, p: float) -> None:
        if row["status"] == 200:
            flipped = row["version"] == NEW and self.chance.random() < self.flips
            label = "malignant" if (p > 0.5) != flipped else "benign"
            row["scores"] = f"malignancy={p:.4f};alnm={p / 3:.4f}"
            row["labels"] = f"malignancy={label};alnm=none"


class Steady(Site):
    """The load of `make rollouts`: four clients, each with one study of two pictures after another.

    Nothing fails with both versions, and no worker dies.
    """

    def __init__(self, seed: int, **facts: Any) -> None:
        super().__init__(seed, broken_studies=0.0, deaths_s=1e9, **facts)

    def requests(self) -> Iterator[Row]:
        pause = CLIENTS / RATE
        first = sorted(self.now + self.chance.random() * pause for _ in range(CLIENTS))
        sides = [0.0] * CLIENTS
        for turn in itertools.count():
            for client, began in enumerate(first):
                self.now = began + turn * pause
                if turn % 2 == 0:
                    sides[client] = self.chance.random()
                yield {
                    "study": f"s{client}-{turn // 2}", "side": sides[client], "client": "load",
                    "broken": False, "slow": 1.0,
                }  # fmt: skip


def step(
    site: Site, kind: Kind, percent: float, policy: Policy, most: int = ENDS, look: int = 10
) -> tuple[str, int]:
    """One step: the guard that sends it back (empty: none), and the new version's requests.

    Guards are looked at after every `look` of those.
    """
    watch = Watch(policy, kind, old=OLD, new=NEW, heads=HEADS, since=1, percent=percent)
    asked, looked = 0, 0
    for number, request in enumerate(site.requests()):
        p = site.chance.betavariate(2, 2)
        of_new = kind == "alone" or (kind == "canary" and request["side"] < percent / 100)
        id_ = f"{number}"
        if kind == "shadow":
            asked += 1
            rows = [site.answer(request, version) | {"id": id_} for version in (OLD, NEW)]
            for row in rows:
                site.score(row, p)
            rows[1]["arm"] = "shadow"
            for row in rows:
                watch.add_attempt(row)
            watch.add_request(rows[0])
        else:
            asked += of_new
            row = site.answer(request, NEW if of_new else OLD) | {"id": id_}
            site.score(row, p)
            watch.add_attempt(row)
            again = site.answer(request, row["version"], elsewhere=True)["status"]
            if row["status"] >= 500:  # of a second node
                row |= {"statuses": f"{row['status']}, {again}", "tries": 2, "status": again}
                row["code"] = "ok" if again == 200 else "inference_failed"
                if again >= 500:
                    row["replay"] = str(site.answer(request, OLD if of_new else NEW)["status"])
            watch.add_request(row)
        if asked >= looked + look:
            looked = asked
            for verdict in watch.verdicts():
                if verdict.state == "failed":
                    return verdict.guard, asked
        if number > most:
            return "", asked
    raise AssertionError


def rollout(site: Site, policy: Policy) -> str:
    """All steps, one after the other: the guard that sent it back, and where."""
    for kind, percent in STEPS:
        guard, _ = step(site, kind, percent, policy)
        if guard:
            return f"{guard}, {kind} {percent:g} %"
    return ""


SITES: dict[str, Callable[[int], Site]] = {
    "0.5 % of studies broken": lambda seed: Site(seed, broken_client_s=0),
    "5 % of studies broken": lambda seed: Site(seed, broken_studies=0.05, broken_client_s=0),
    "one client always fails": Site,
    "both, a worker dies each two minutes": lambda seed: Site(
        seed, broken_studies=0.05, deaths_s=120
    ),
    "both, a worker dies each minute": lambda seed: Site(seed, broken_studies=0.05, deaths_s=60),
}
BAD: dict[str, Callable[[int], Site]] = {
    "5 x errors (5 % for 1 %)": lambda seed: Site(seed, errors=(0.01, 0.05)),
    "2 x latency": lambda seed: Site(seed, slower=2),
    "5 % of labels flipped": lambda seed: Site(seed, flips=0.05),
}
FOUND_IN: tuple[tuple[Kind, float], ...] = (("shadow", 0), ("canary", 25), ("alone", 100))


def within(found: Sequence[int], *percents: float) -> str:
    """Of the requests by which each was found, these percentiles."""
    values = np.percentile(found, percents) if found else [math.nan] * len(percents)
    return " | ".join(f"{value:.0f}" for value in values)


def turned_bad(runs: int) -> list[int]:
    """Requests within which a version that fails 10 % is found in the canary of `make rollouts`."""
    policy = Policy.model_validate(QUICK | TURNS_BAD)
    percent = policy.canary[0]
    found = [
        step(Steady(seed, errors=(0.0, 0.1)), "canary", percent, policy, look=2)
        for seed in range(runs)
    ]
    assert all(guard for guard, _ in found)
    return [asked for _, asked in found]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--bad", type=int, default=40)
    given = parser.parse_args()
    policy = Policy()
    found = turned_bad(2000)
    print(f"turns bad in the canary: requests at 50, 95, 99 %: {within(found, 50, 95, 99)}")
    print("\n| identical versions | rollouts | sent back |\n|---|---|---|")
    for name, site in SITES.items():
        ends = [rollout(site(seed), policy) for seed in range(given.runs)]
        back = [it for it in ends if it]
        print(f"| {name} | {given.runs} | {len(back)} {'; '.join(sorted(set(back)))} |", flush=True)
    print("\n| bad version | step | found | requests of it, median | 95 % |\n|---|---|---|---|---|")
    for name, site in BAD.items():
        for kind, percent in FOUND_IN:
            if (kind != "shadow" and "labels" in name) or (kind == "alone" and "latency" in name):
                continue
            runs = [step(site(seed), kind, percent, policy, MOST) for seed in range(given.bad)]
            found = [asked for guard, asked in runs if guard]
            where = f"{kind} {percent} %" if kind == "canary" else kind
            print(f"| {name} | {where} | {len(found)} of {given.bad} | {within(found, 50, 95)} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
