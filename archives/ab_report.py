"""The A/B analysis of a rollout, from the gateway's logs: what each version did, on one page.

Requests of clients give counts, status codes and the times that clients saw; attempts at nodes give
scores, those of the shadow too. Intervals hold for one look at the end; the guards' tests are the
ones that may be looked at all the time. The page holds counts only: no study, not even its hash.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archives import gateway_logs
from archives.gateway_logs import LogTail, Row
from archives.journal import Entry, Journal
from archives.rollout_facts import Facts, last_facts, rollouts
from archives.sequential import ks, ks_by_chance
from sonode_console import UserError

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
Z = 1.959964  # of 95 %
BINS = np.linspace(0, 1, 21)
COLOURS = {"old": "#7a7a7a", "new": "#1f5fa8", "shadow": "#d98a1f"}
Json = dict[str, Any]

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }}
 table {{ border-collapse: collapse; margin: .5rem 0 1.5rem }}
 td, th {{ padding: .2rem .9rem .2rem 0; text-align: right; font-weight: normal }}
 td {{ font-variant-numeric: tabular-nums }}
 td:first-child, th:first-child, td.t {{ text-align: left }}
 th {{ border-bottom: 1px solid #888; color: #555; vertical-align: bottom }}
 figure {{ display: inline-block; margin: 0 1rem 1rem 0 }}
 figcaption, p.note {{ color: #555 }}
</style>
<h1>{title}</h1>
{body}
<p class="note">A research tool: not a medical device.</p>
</html>
"""


def write(state: Path, out: Path) -> Path:
    """Write report.html and report.json of the last rollout into `out`; returns the page's path.

    Raises UserError where no request was logged in it.
    """
    entries = Journal(state).entries()
    facts = last_facts(entries)
    if facts is None:
        raise UserError(f"--state {state}: no rollout was ever started here")
    mine = rollouts(entries)[-1]
    found = analyse(state, facts, mine)
    if not found["requests"]:
        raise UserError(f"--state {state}: no request was logged in rollout {facts.rollout}")
    page = render(found)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    (out / "report.html").write_text(page)
    return out / "report.html"


def analyse(state: Path, facts: Facts, entries: Sequence[Entry]) -> Json:
    """Count and compare; `entries` are those of the rollout."""
    until = math.inf if entries[-1].rollout else entries[-1].time
    versions = {"old": facts.old.version if facts.old else None, "new": facts.new.version}
    arms: dict[str, list[Row]] = {"old": [], "new": []}
    for row in _rows(state, "requests.jsonl", facts.began, until):
        for arm, version in versions.items():
            if row["version"] == version:
                arms[arm].append(row)
    scores: dict[str, dict[str, list[float]]] = {}
    for row in _rows(state, "attempts.jsonl", facts.began, until):
        if row["status"] == 200:
            arm = "shadow" if row["arm"] == "shadow" else "old"
            arm = "new" if row["version"] == versions["new"] and arm == "old" else arm
            for head, score in gateway_logs.scores(row).items():
                scores.setdefault(head, {}).setdefault(arm, []).append(score)
    return {
        "rollout": facts.rollout,
        "model": facts.model,
        "versions": versions,
        "from": facts.began,
        "to": None if math.isinf(until) else until,
        "end": entries[-1].event,
        "requests": sum(map(len, arms.values())),
        "arms": {arm: _arm(rows) for arm, rows in arms.items() if rows},
        "scores": {head: _scores(by_arm) for head, by_arm in scores.items()},
        "journal": [
            {"time": it.time, "event": it.event, "step": it.facts.get("step"),
             "told": it.facts.get("said") or it.facts.get("why")}
            for it in entries
        ],
    }  # fmt: skip


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, n > 0 (1927, doi 10.1080/01621459.1927.10502953)."""
    centre = (hits + Z * Z / 2) / (n + Z * Z)
    half = Z / (n + Z * Z) * math.sqrt(hits * (n - hits) / n + Z * Z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


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


def _rows(state: Path, name: str, since: float, until: float) -> list[Row]:
    rows = LogTail(state / "gateway" / name, since).rows()
    return [row for row in rows if gateway_logs.started(row) >= since and row["t"] <= until]


def _arm(rows: Sequence[Row]) -> Json:
    n = len(rows)
    failed = sum(row["status"] >= 500 for row in rows)
    low, high = wilson(failed, n)
    times = [row["ms"] for row in rows if row["status"] == 200]
    return {
        "requests": n,
        "studies": len({row["study"] for row in rows if row["study"]}),
        "without_study": sum(not row["study"] for row in rows),
        "status": {
            str(key): count for key, count in sorted(Counter(_each(rows, "status")).items())
        },
        "code": dict(sorted(Counter(_each(rows, "code")).items())),
        "failed": {"count": failed, "share": failed / n, "low": low, "high": high},
        "tried_twice": sum(row["tries"] > 1 for row in rows),
        "ms": {name: quantile(times, q) for name, q in QUANTILES.items()} if times else None,
    }


def _each(rows: Sequence[Row], key: str) -> list[Any]:
    return [row[key] for row in rows]


def _scores(by_arm: dict[str, list[float]]) -> Json:
    found: Json = {
        arm: {
            "n": len(values),
            "mean": float(np.mean(values)),
            "histogram": np.histogram(values, BINS)[0].tolist(),
        }
        for arm, values in by_arm.items()
    }
    for arm in ("new", "shadow"):
        if arm in by_arm and "old" in by_arm:
            found[arm]["ks_to_old"] = ks(by_arm["old"], by_arm[arm])
            found[arm]["ks_by_chance"] = ks_by_chance(len(by_arm["old"]), len(by_arm[arm]))
    return found


# --- the page


def render(found: Json) -> str:
    """The page: everything in it, no script, nothing fetched."""
    versions = found["versions"]
    named = {"old": f"old: {versions['old']}", "new": f"new: {versions['new']}"}
    arms = found["arms"]
    rows = [
        ("requests of clients", *(f"{it['requests']:,}" for it in arms.values())),
        ("studies", *(f"{it['studies']:,}" for it in arms.values())),
        ("requests without a study", *(f"{it['without_study']:,}" for it in arms.values())),
        ("failed (5xx)", *(_share(it["failed"]) for it in arms.values())),
        ("tried at two nodes", *(f"{it['tried_twice']:,}" for it in arms.values())),
        *(
            (f"{name}, ms (status 200)", *(_quantile(it["ms"], name) for it in arms.values()))
            for name in QUANTILES
        ),
    ]
    body = [_table(["", *(named[arm] for arm in arms)], rows)]
    for what, title in (("status", "Status"), ("code", "Code")):
        keys = sorted({key for it in arms.values() for key in it[what]})
        counts = [(key or "none", *(f"{it[what].get(key, 0):,}" for it in arms.values()))
                  for key in keys]  # fmt: skip
        body += [f"<h2>{title}</h2>", _table(["", *(named[arm] for arm in arms)], counts)]
    body += ["<h2>Scores</h2>", *(_head(head, it, named) for head, it in found["scores"].items())]
    body += [
        '<p class="note">The old version answers other studies than the new one, drawn by chance; '
        "the shadow the same ones. Distances beyond chance (5 %, one look) are a difference of the "
        "versions. The images of one study resemble each other, which the intervals do not "
        "count.</p>",
        "<h2>Journal</h2>",
        _table(
            ["time", "entry", ""],
            [
                (_clock(it["time"]), it["step"] or it["event"], it["told"] or "")
                for it in found["journal"]
            ],
        ),
    ]
    title = f"{found['model']}: {versions['old'] or 'nothing'} to {versions['new']}"
    return _PAGE.format(title=html.escape(f"{title}, {found['end']}"), body="\n".join(body))


def _clock(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def _share(failed: Json) -> str:
    low, high = failed["low"], failed["high"]
    return f"{failed['count']:,}: {failed['share']:.2%} ({low:.2%} to {high:.2%})"


def _quantile(ms: Json | None, name: str) -> str:
    if ms is None:
        return "undefined"
    low, high = (
        "…" if ms[name][end] is None else f"{ms[name][end]:.0f}" for end in ("low", "high")
    )
    return f"{ms[name]['value']:.0f} ({low} to {high})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def _head(head: str, by_arm: Json, named: dict[str, str]) -> str:
    labels = named | {"shadow": named["new"].replace("new", "shadow")}
    rows = [
        (
            labels[arm],
            f"{it['n']:,}",
            f"{it['mean']:.3f}",
            f"{it['ks_to_old']:.3f}" if "ks_to_old" in it else "",
            f"{it['ks_by_chance']:.3f}" if "ks_by_chance" in it else "",
        )
        for arm, it in by_arm.items()
    ]
    columns = ["probability", "scores", "mean", "KS to the old", "by chance"]
    uri = base64.b64encode(_plot(by_arm, labels)).decode()
    return (
        f"<h3>{html.escape(head)}</h3><figure>"
        f'<img alt="Distribution of {html.escape(head)} by version" '
        f'src="data:image/svg+xml;base64,{uri}"></figure>{_table(columns, rows)}'
    )


def _plot(by_arm: Json, labels: dict[str, str]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.subplots()
    for arm, it in by_arm.items():
        shares = np.array(it["histogram"]) / it["n"]
        axes.stairs(shares, BINS, label=labels[arm], color=COLOURS[arm], linewidth=1.6)
    axes.set(xlim=(0, 1), xlabel="probability", ylabel="share of scores")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()
