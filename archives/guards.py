"""What sends a new version back: a step's guards, fed with the gateway's logs line by line.

Old and new version are compared at the same time, so what hits both (a slow network, a node that
dies, broken images) is held against neither. Requests of one study resemble each other: scores are
judged by each study's first. A request that is repeated, or one that waits in the queue behind a
slow one, is not independent of the other either; for that the times are judged by one pair a
second, and failures that nobody signs (a worker died) by one in five seconds and node, and by the
share of each five seconds. Where the old version answers, too, a limit on failures is the larger of
the policy's and what the old version does: both must be refuted, so neither test costs the other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from archives import gateway_logs
from archives.failures import BURST_MOST, Against, Bursts, Pairing, Windows
from archives.gateway_logs import OWN_CODES, Row
from archives.policy import Policy
from archives.sequential import FIRST_LOOK, MeanTest, ks, ks_by_chance, least_distance

Kind = Literal["shadow", "canary", "alone"]
"""How the new version is used: beside the old one, for a part of the studies, or for all."""

SLOW = 0.05
"""Share of the old version's attempts that are slow, by the meaning of p95."""
LATENCIES = 200
"""Latest attempts of the old version from which its p95 is taken, and at least a tenth of them."""
SLOW_MOST = 1.5
"""What a slow second can multiply the evidence by: a worker that is started anew takes several."""
FORGET_S = 300.0
"""A mirrored request whose other half has not come by then has none."""
FEW_HOLD = 0.25
"""Evidence from which pairs and windows hold a step: a lone one that fails is no share, and stays
alone."""


@dataclass(frozen=True)
class Verdict:
    """What a guard says by now."""

    guard: str
    state: Literal["ok", "hold", "failed"]
    """hold: beyond the limit or too little to tell, but not proved to be beyond it."""
    value: float | None
    limit: float
    n: int
    """Observations that it judges by."""
    evidence: float
    """0 to 1: of what it takes to send the version back."""
    said: str


class Watch:
    """The guards of one step, from its beginning on.

    `since` is the step's beginning in Unix time; what began earlier belongs to the step before.
    `old` is None where there is no old version (the first one ever).
    """

    def __init__(
        self,
        policy: Policy,
        kind: Kind,
        *,
        old: str | None,
        new: str,
        heads: Sequence[str],
        since: float,
    ) -> None:
        self.policy, self.kind, self.heads = policy, kind, heads
        self.old, self.new, self.since = old, new, since
        self.answered = 0
        """Requests that the new version has answered with a score."""
        self.needed = math.log(count_tests(policy, heads) / policy.alpha)
        odds = policy.max_odds_ratio
        share = odds / (1 + odds)  # of the pairs in which one of the two fails
        self._errors = MeanTest(policy.max_error_rate, BURST_MOST)
        self._windows = Windows(policy.max_error_rate)
        self._failing = MeanTest(share)
        self._slow = MeanTest(share, SLOW_MOST)
        self._unanswered = MeanTest(policy.max_unanswered, BURST_MOST)
        self._more_errors, self._more_unanswered = Against(bursts=True), Against()
        self._flips = {head: MeanTest(policy.max_flip_rate) for head in heads}
        self._differences = {head: MeanTest(policy.max_difference) for head in heads}
        self._scores: dict[str, dict[str, list[float]]] = {
            arm: {head: [] for head in heads} for arm in ("old", "new")
        }
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._attempts = Pairing()
        self._mirrored: dict[str, Row] = {}
        self._studies: dict[str, set[str]] = {"old": set(), "new": set(), "pairs": set()}
        self._last_slow = -math.inf
        self._bursts = Bursts()

    def add_request(self, row: Row) -> None:
        """Take a line of requests.jsonl."""
        if gateway_logs.started(row) < self.since or not gateway_logs.was_tried(row):
            return
        if row["version"] == self.new:
            self._unanswered.add(float(row["status"] >= 500))
            self._more_unanswered.add_new(row)
        elif self._compares(row):
            self._more_unanswered.add_old(row)

    def add_attempt(self, row: Row) -> None:
        """Take a line of attempts.jsonl."""
        inside = gateway_logs.started(row) >= self.since
        if row["version"] == self.old:
            if row["status"] == 200:
                self._latencies.append(row["ms"])
            if inside and self._compares(row):
                self._more_errors.add_old(row)
                if new := self._attempts.take():
                    self._pair(new, row)
        elif row["version"] == self.new and inside:
            self.answered += row["status"] == 200
            self._attempts.add_new(row)
            self._more_errors.add_new(row)
            self._count_error(row)
        else:
            return
        if inside and self.kind == "shadow":
            self._match(row)
        elif inside and self.kind == "canary":
            self._collect(row)

    def verdicts(self) -> list[Verdict]:
        """What all guards of this step say by now."""
        policy = self.policy
        alone = self.kind == "alone"  # nothing answers at the same time
        errors, unanswered = (None, None) if alone else (self._more_errors, self._more_unanswered)
        limit = policy.max_error_rate
        found = [
            self._rate("errors", self._errors, limit, against=errors),
            self._rate(
                "errors over time", self._windows.test, limit, against=errors, holds_from=FEW_HOLD
            ),
        ]
        if self.kind != "shadow":
            limit = policy.max_unanswered
            found += [self._rate("unanswered", self._unanswered, limit, against=unanswered)]
        if alone:
            return found
        found += [
            self._rate(f"{what} against the old version", test, test.limit, holds_from=FEW_HOLD)
            for what, test in (("failing", self._failing), ("slow", self._slow))
        ]
        if self.kind == "shadow":
            for head in self.heads:
                for what, test, limit in (
                    ("flips", self._flips[head], policy.max_flip_rate),
                    ("difference", self._differences[head], policy.max_difference),
                ):
                    found.append(self._rate(f"{what} of {head}", test, limit, needs_some=True))
        else:
            found += [self._shift(head) for head in self.heads]
        return found

    # --- counting

    def _compares(self, old: Row) -> bool:
        """Whether chance could have sent it to the new version: in a canary only a study."""
        if self.kind == "canary":
            return old["version"] == self.old and bool(old["study"])
        return old["version"] == self.old and self.kind == "shadow"

    def _count_error(self, row: Row) -> None:
        failed = row["status"] >= 500
        self._windows.add(row)
        if not failed or self._bursts.is_news(row["node"], row):
            self._errors.add(float(failed))

    def _pair(self, new: Row, old: Row) -> None:
        failed = new["status"] != 200, old["status"] != 200
        if failed[0] != failed[1] and self._bursts.is_news("a pair", new if failed[0] else old):
            self._failing.add(float(failed[0]))
        self._count_slow(new, old)

    def _count_slow(self, new: Row, old: Row) -> None:
        if len(self._latencies) < LATENCIES // 10 or new["t"] - self._last_slow < 1:
            return
        self._last_slow = new["t"]
        p95 = float(np.percentile(list(self._latencies), 100 * (1 - SLOW)))
        slow = new["ms"] > self.policy.slow_factor * p95
        if slow != (old["ms"] > p95):
            self._slow.add(float(slow))

    def _match(self, row: Row) -> None:
        """Find the two answers to one mirrored request."""
        if row["code"] in OWN_CODES or row["status"] >= 500:
            return
        other = self._mirrored.pop(row["id"], None)
        if other is None or other["version"] == row["version"]:
            self._mirrored[row["id"]] = row
            oldest = next(iter(self._mirrored))
            if self._mirrored[oldest]["t"] < row["t"] - FORGET_S:
                del self._mirrored[oldest]
            return
        if not self._is_first("pairs", row):
            return
        a, b = gateway_logs.labels(row), gateway_logs.labels(other)
        x, y = gateway_logs.scores(row), gateway_logs.scores(other)
        if a or b:  # not refused by both
            for head in self.heads:
                self._flips[head].add(float(a.get(head) != b.get(head)))
                if head in x and head in y:
                    self._differences[head].add(abs(x[head] - y[head]))

    def _collect(self, row: Row) -> None:
        arm = "new" if row["version"] == self.new else "old"
        found = gateway_logs.scores(row)
        if found and row["study"] and self._is_first(arm, row):
            for head in self.heads:
                if head in found:
                    self._scores[arm][head].append(found[head])

    def _is_first(self, where: str, row: Row) -> bool:
        """Whether it is the first of its study; one without a study is its own."""
        if row["study"] in self._studies[where]:
            return False
        if row["study"]:
            self._studies[where].add(row["study"])
        return True

    # --- judging

    def _rate(
        self,
        guard: str,
        test: MeanTest,
        limit: float,
        *,
        against: Against | None = None,
        needs_some: bool = False,
        holds_from: float = 0.0,
    ) -> Verdict:
        value, log_evidence = test.mean, test.log_evidence
        beyond = value is not None and value > limit
        excused = beyond and against is not None and against.no_more
        if against:
            log_evidence = min(log_evidence, against.test.log_evidence)
        evidence = max(0.0, log_evidence / self.needed)
        state: Literal["ok", "hold", "failed"] = "ok"
        if evidence >= 1:
            state = "failed"
        elif needs_some if value is None else beyond and not excused and evidence >= holds_from:
            state = "hold"
        told = "nothing yet" if value is None else f"{value:.2%} of {test.n}"
        told += f", limit {limit:.2%}" + (", but the old version's, too" if excused else "")
        return Verdict(
            guard, state, value, limit, test.n, min(1.0, evidence), f"{guard}: {told}"
        )  # fmt: skip

    def _shift(self, head: str) -> Verdict:
        guard, limit = f"shift of {head}", self.policy.max_shift
        old, new = self._scores["old"][head], self._scores["new"][head]
        few = min(len(old), len(new))
        counts = f"{len(new)} and {len(old)} studies"
        if few < FIRST_LOOK:
            return Verdict(guard, "hold", None, limit, few, 0.0, f"{guard}: only {counts}")
        alpha = math.exp(-self.needed)
        value = ks(old, new)
        least = least_distance(old, new, alpha)
        assert least is not None
        state: Literal["ok", "hold", "failed"] = "ok"
        if least > limit:
            state = "failed"
        elif value - ks_by_chance(len(old), len(new)) > limit:
            state = "hold"
        # The distance that it would take here.
        evidence = value / (limit + max(value - least, 1e-9))
        return Verdict(
            guard, state, value, limit, few, 1.0 if state == "failed" else min(evidence, 0.99),
            f"{guard}: distance {value:.3f} of {counts}, limit {limit:g}",
        )  # fmt: skip


def count_tests(policy: Policy, heads: Sequence[str]) -> int:
    """How many tests a rollout makes, among which `alpha` is shared out.

    Shadow: errors, the same over time, failing, slow, and two a head; each canary step: those four,
    unanswered and one a head; at 100 %, and from default to keep, alone: errors, the same over
    time, unanswered.
    """
    return 4 + 2 * len(heads) + (len(policy.canary) - 1) * (5 + len(heads)) + 2 * 3
