"""What a guard says: from the evidence of its test to a verdict with its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from archives.judging.failures import Against
from archives.judging.sequential import FIRST_LOOK, MeanTest, ks, ks_by_chance, least_distance


@dataclass(frozen=True)
class Verdict:
    """A guard's present verdict."""

    guard: str
    state: Literal["ok", "hold", "failed"]
    """hold: beyond the limit, but not proven to be, or too little data."""
    value: float | None
    limit: float
    n: int
    """Studies that it judges by, or what else it counts once."""
    evidence: float
    """0 to 1: of the evidence that a rollback needs."""
    detail: str

    def __str__(self) -> str:
        return f"{self.guard}: {self.detail}"


def of_mean(
    guard: str,
    test: MeanTest,
    limit: float,
    *,
    needed: float,
    against: Against | None = None,
    at_least: int = 0,
    holds_from: float = 0.0,
) -> Verdict:
    """Of a mean that may not be beyond `limit`; `needed` is the log-evidence of a rollback.

    Beyond the limit it holds from the share `holds_from` of the evidence on, and below `at_least`
    observations anyway; all of the evidence is a failure, of however few. What is no worse than the
    old version, by `against`, neither holds nor fails.
    """
    value, log_evidence = test.mean, test.log_evidence
    beyond = value is not None and value > limit
    excused = beyond and against is not None and against.as_many
    if against:
        log_evidence = min(log_evidence, against.test.log_evidence)
    evidence = max(0.0, log_evidence / needed)
    few = test.n < at_least
    state: Literal["ok", "hold", "failed"] = "ok"
    if evidence >= 1:
        state = "failed"
    elif few or (beyond and not excused and evidence >= holds_from):
        state = "hold"
    text = "no data yet" if value is None else f"{value:.2%} of {test.n}"
    text += f", limit {limit:.2%}" + (", but so is the old version" if excused else "")
    text += f", judged from {at_least} studies on" if few and state == "hold" else ""
    return Verdict(guard, state, value, limit, test.n, min(1.0, evidence), text)


def of_shift(
    guard: str, old: Sequence[float], new: Sequence[float], limit: float, needed: float
) -> Verdict:
    """Of the distance between the scores of both versions, which may not be beyond `limit`."""
    few = min(len(old), len(new))
    counts = f"{len(new)} and {len(old)} studies"
    if few < FIRST_LOOK:
        return Verdict(guard, "hold", None, limit, few, 0.0, f"only {counts}")
    value = ks(old, new)
    least = least_distance(old, new, math.exp(-needed))
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
        f"distance {value:.3f} of {counts}, limit {limit:g}",
    )  # fmt: skip
