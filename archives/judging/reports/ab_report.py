"""The A/B analysis of a rollout, from the gateway's logs: what each version did, on one page.

Compared is what chance alone has set apart at the same time: the requests with a study in the
canary steps in which both versions answer, and each mirrored request's two answers. All others are
counted, by step. Requests of clients give status codes and the times that nodes took for them, all
tries together; attempts at nodes give scores. Intervals hold for one look at the end; the guards'
tests are the ones that may be looked at all the time. The page holds counts only: no study, not
even its hash.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from archives.gateway import logs
from archives.gateway.logs import LogRow, LogTail
from archives.judging.journal_facts import Facts, last_facts, rollouts
from archives.judging.reports import ab_page
from archives.judging.sequential import ks, ks_by_chance
from archives.state.journal import Entry, Journal, fold
from sonode.console import UserError
from sonode.wilson import wilson

Z = 1.959964  # of 95 %
Json = dict[str, Any]


def write(state: Path, out: Path) -> Path:
    """Write report.html and report.json of the last rollout into `out`; returns the page's path.

    Raises UserError where no request was logged in it.
    """
    entries = Journal(state).entries()
    facts = last_facts(entries)
    if facts is None:
        raise UserError(f"--state {state}: has no rollout; check the folder")
    mine = rollouts(entries)[-1]
    found = analyse(state, facts, mine)
    if not found["requests"]:
        raise UserError(f"--state {state}: no request was logged in rollout {facts.rollout}")
    page = ab_page.render(found)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    (out / "report.html").write_text(page)
    return out / "report.html"


def analyse(state: Path, facts: Facts, entries: Sequence[Entry]) -> Json:
    """Count and compare; `entries` are those of the rollout."""
    end = next((it for it in entries if it.rollout is None), None)
    until = end.seq if end else math.inf
    versions = {"old": facts.old.version if facts.old else None, "new": facts.new.version}
    arm_of = {version: arm for arm, version in versions.items()}
    steps = _steps(entries)
    arms: dict[str, list[LogRow]] = {"old": [], "new": []}
    for row in _rows(state, "requests.jsonl", facts.since, until):
        if row["version"] in arm_of and logs.was_tried(row):
            arm, step = arm_of[row["version"]], _step_of(row, steps)
            step.requests[arm if row["study"] else "without_study"] += 1
            if step.compares and row["study"]:
                arms[arm].append(row)
    answers: list[tuple[str, LogRow]] = []
    rows = _rows(state, "attempts.jsonl", facts.since, until)
    scored = [
        row
        for row in rows
        if row["status"] == 200 and row["version"] in arm_of and row["arm"] != "replay"
    ]
    shadows = {row["id"]: row for row in scored if row["arm"] == "shadow"}
    for row in scored:
        if row["arm"] == "shadow":
            continue
        if row["id"] in shadows:
            answers += [("mirrored", row), ("shadow", shadows[row["id"]])]
        elif row["study"] and _step_of(row, steps).compares:
            answers.append((arm_of[row["version"]], row))
    scores: dict[str, dict[str, list[float]]] = {}
    for arm, row in answers:
        for head, score in logs.scores(row).items():
            scores.setdefault(head, {}).setdefault(arm, []).append(score)
    return {
        "rollout": facts.rollout,
        "model": facts.model,
        "versions": versions,
        "from": facts.began,
        "to": end.time if end else None,
        "end": (end or entries[-1]).event,
        "requests": sum(step.requests.total() for step in steps.values()),
        "steps": [
            {"step": step.name, "compared": step.compares}
            | {arm: step.requests[arm] for arm in ("old", "new", "without_study")}
            for step in steps.values()
            if step.requests
        ],
        "arms": {arm: measures(rows) for arm, rows in arms.items() if rows},
        "scores": {head: _scores(by_arm) for head, by_arm in scores.items()},
        "journal": [
            {"time": it.time, "event": it.event, "step": it.facts.get("step"),
             "detail": it.facts.get("said") or it.facts.get("why")}
            for it in entries
        ],
    }  # fmt: skip


@dataclass
class _Step:
    name: str
    """Of all steps in which the same versions answer the same requests: rows do not tell them
    apart."""
    compares: bool = False
    """Both versions answer clients, and chance says which one a study gets."""
    requests: Counter[str] = field(default_factory=Counter)
    """By version, and those without a study, which are never sent by chance."""


def _steps(entries: Sequence[Entry]) -> dict[int, _Step]:
    """By the entry that their requests are logged with."""
    found: dict[int, _Step] = {}
    for number, entry in enumerate(entries, 1):
        if "step" not in entry.facts:
            continue
        name, share = str(entry.facts["step"]), entry.facts.get("percent", 0.0)
        split = fold(entries[:number]).split
        if split in found:
            found[split].name += f", {name}"
        else:
            found[split] = _Step(name, name.startswith("canary") and 0 < share < 100)
    return found


def _step_of(row: LogRow, steps: dict[int, _Step]) -> _Step:
    return steps.setdefault(logs.seq(row), _Step("not in the journal"))


def quantile(values: Sequence[float], q: float) -> Json:
    """A quantile with its 95 % interval from order statistics, whatever the distribution.

    Ranks are q n -+ 1.96 sqrt(n q (1 - q)) (Conover 1999, section 3.2); an end is None where the
    sample is too small to have it.
    """
    ordered = sorted(values)
    n = len(ordered)
    half = Z * math.sqrt(n * q * (1 - q))
    low, high = math.floor(n * q - half), math.ceil(n * q + half)
    return {
        "value": float(np.quantile(ordered, q)),
        "low": ordered[low - 1] if low >= 1 else None,
        "high": ordered[high - 1] if high <= n else None,
    }


def _rows(state: Path, name: str, since: int, until: float) -> list[LogRow]:
    """The rows of a rollout, by the journal's entries and not by a clock that may be set."""
    rows = LogTail(state / "gateway" / name, since).rows()
    return [row for row in rows if since <= logs.seq(row) < until]


def measures(rows: Sequence[LogRow]) -> Json:
    """Count, share of 5xx with its 95 % interval, and times of one version's requests."""
    n = len(rows)
    failed = sum(row["status"] >= 500 for row in rows)
    low, high = wilson(failed, n) or (None, None)
    times = [logs.waited_ms(row) for row in rows if row["status"] == 200]
    return {
        "requests": n,
        "studies": len({row["study"] for row in rows if row["study"]}),
        "status": {
            str(key): count for key, count in sorted(Counter(row["status"] for row in rows).items())
        },
        "code": dict(sorted(Counter(row["code"] for row in rows).items())),
        "failed": {"count": failed, "share": failed / n, "low": low, "high": high},
        "tried_twice": sum(row["tries"] > 1 for row in rows),
        "ms": {name: quantile(times, q) for name, q in ab_page.QUANTILES.items()}
        if times
        else None,
    }


def _scores(by_arm: dict[str, list[float]]) -> Json:
    found: Json = {
        arm: {
            "n": len(values),
            "mean": float(np.mean(values)),
            "histogram": np.histogram(values, ab_page.BINS)[0].tolist(),
        }
        for arm, values in by_arm.items()
    }
    for arm, to in (("new", "old"), ("shadow", "mirrored")):
        if arm in by_arm and to in by_arm:
            found[arm]["ks_to_old"] = ks(by_arm[to], by_arm[arm])
            found[arm]["ks_by_chance"] = ks_by_chance(len(by_arm[to]), len(by_arm[arm]))
    return found
