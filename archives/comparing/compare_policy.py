"""What a new archive must keep to: limits in YAML, and whether a comparison keeps to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sonode.console import UserError
from sonode.files.settings import read_settings

Json = Mapping[str, Any]
Outcome = Literal["pass", "fail", "undecided"]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Ratio = Annotated[float, Field(strict=True, gt=0)]
ONLY_IN_B = "only in B"
"""Why a head is not compared that is new: no limit is about it."""


class Policy(BaseModel):
    """Limits, each of which may be absent: then it is not judged.

    What is estimated (AUC, latency, throughput) passes where its whole 95 % interval keeps to the
    limit, fails where none of it does, and is undecided between. What is counted on these very rows
    (flips, inconsistency, failures) passes or fails by the count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    auc_margin: Share | None = None
    """Of each score with labels: AUC of b - AUC of a is at least minus this (non-inferiority)."""
    max_flip_rate: Share | None = None
    """Of each head: the share of rows that b calls differently."""
    max_inconsistency_increase: Share | None = None
    """Share of rows where a head is positive and its parent is not, b - a."""
    max_new_failures: Share | None = None
    """Share of the manifest's rows that b fails and a does not."""
    max_p95_ratio: Ratio | None = None
    """95th percentile of the latency, b over a."""
    min_throughput_ratio: Ratio | None = None
    """Images per second, b over a."""


@dataclass(frozen=True)
class Rule:
    """One limit and what was found."""

    rule: str
    on: str
    """The head or score, or what it is about."""
    outcome: Outcome
    value: float | None
    low: float | None
    high: float | None
    limit: float
    reason: str | None
    """Why there is no value."""


def read(path: Path) -> Policy:
    """Raises UserError, in one line, for what is no policy."""
    known = ", ".join(Policy.model_fields)
    policy = read_settings(path, Policy, "--policy", f"it takes {known}")
    if not policy.model_dump(exclude_none=True):
        raise UserError(f"--policy {path}: no limit in it; give {known}")
    return policy


def judge(policy: Policy, found: Json) -> list[Rule]:
    """Judge a comparison (the content of compare.json) by each limit that the policy has."""
    return [rule for rules in _RULES for rule in rules(policy, found)]


def outcome(rules: list[Rule]) -> Outcome:
    """The worst of them."""
    outcomes = {rule.outcome for rule in rules}
    return "fail" if "fail" in outcomes else "undecided" if "undecided" in outcomes else "pass"


def _auc(policy: Policy, found: Json) -> Iterator[Rule]:
    if policy.auc_margin is None:
        return
    for head in found["heads"].values():
        of_score: dict[str, Json] = {}
        for auc in head["auc"]:  # `all`, then the head's primary set where it has another
            of_score[auc["score"]] = auc
        for score, auc in of_score.items():
            on = score if auc["on"] == "all" else f"{score}, {auc['on']} images"
            of = {"value": auc["difference"], "low": auc["low"], "high": auc["high"]}
            why = f"{auc['n_positive']} positive of {auc['n_images']} labelled images"
            yield _estimated("AUC, B - A", on, of, at_least=-policy.auc_margin, unless=why)
    for name, why in _lost(found):
        yield _rule("AUC, B - A", name, "undecided", _NOTHING, -policy.auc_margin, why)


def _flips(policy: Policy, found: Json) -> Iterator[Rule]:
    if policy.max_flip_rate is not None:
        for name, head in found["heads"].items():
            yield _counted("flips", name, head["flips"], policy.max_flip_rate)
        for name, why in _lost(found):
            yield _rule("flips", name, "undecided", _NOTHING, policy.max_flip_rate, why)


def _lost(found: Json) -> Iterator[tuple[str, str]]:
    """Heads of A that B lacks or has with other labels, and why: their limits cannot be judged."""
    for name, why in found["left_out"].items():
        if why != ONLY_IN_B:
            yield name, why


def _inconsistency(policy: Policy, found: Json) -> Iterator[Rule]:
    if (most := policy.max_inconsistency_increase) is not None:
        yield _counted("inconsistency", "B - A", found["inconsistency"]["difference"], most)


def _failures(policy: Policy, found: Json) -> Iterator[Rule]:
    if policy.max_new_failures is not None:
        rows = found["rows"]["manifest"]
        share = len(found["rows"]["failed"]["b_only"]) / rows if rows else None
        of = {**_NOTHING, "value": share}
        yield _counted("new failures", "B", of, policy.max_new_failures)


def _speed(policy: Policy, found: Json) -> Iterator[Rule]:
    speed = found["speed"] or {"p95_ratio": _NOTHING, "throughput_ratio": _NOTHING}
    why = "too few images were timed"
    if (most := policy.max_p95_ratio) is not None:
        yield _estimated("latency p95", "B / A", speed["p95_ratio"], at_most=most, unless=why)
    if (least := policy.min_throughput_ratio) is not None:
        of = speed["throughput_ratio"]
        yield _estimated("throughput", "B / A", of, at_least=least, unless=why)


_RULES = (_auc, _flips, _inconsistency, _failures, _speed)
_NOTHING = {"value": None, "low": None, "high": None}


def _counted(rule: str, on: str, of: Json, limit: float) -> Rule:
    """`of`: value, low and high."""
    value = of["value"]
    if value is None:
        return _rule(rule, on, "undecided", of, limit, "no row to count")
    return _rule(rule, on, "pass" if value <= limit else "fail", of, limit)


def _estimated(
    rule: str,
    on: str,
    of: Json,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    unless: str,
) -> Rule:
    """`unless`: why there may be no interval."""
    limit = at_least if at_least is not None else at_most
    assert limit is not None
    bounds = of["low"], of["high"]
    if None in bounds:
        return _rule(rule, on, "undecided", of, limit, unless)
    kept = [bound >= limit if at_most is None else bound <= limit for bound in bounds]
    outcome: Outcome = "pass" if all(kept) else "undecided" if any(kept) else "fail"
    return _rule(rule, on, outcome, of, limit)


def _rule(
    rule: str, on: str, outcome: Outcome, of: Json, limit: float, reason: str | None = None
) -> Rule:
    return Rule(rule, on, outcome, of["value"], of["low"], of["high"], limit, reason)
