"""The page of the A/B report."""

from __future__ import annotations

import base64
import html
import io
import time
from typing import Any

import numpy as np

from sonode.page import page, table

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
BINS = np.linspace(0, 1, 21)
COLOURS = {"old": "#7a7a7a", "new": "#1f5fa8", "mirrored": "#b9b9b9", "shadow": "#d98a1f"}
NOTHING = "<p>None: no canary step had any.</p>"
Json = dict[str, Any]


def render(found: Json) -> str:
    """Lay the analysis out; see `archives.judging.reports.ab_report.analyse`."""
    versions = found["versions"]
    named = {"old": f"old: {versions['old'] or 'none'}", "new": f"new: {versions['new']}"}
    arms = found["arms"]
    rows = [
        ("requests of clients", *(f"{it['requests']:,}" for it in arms.values())),
        ("studies", *(f"{it['studies']:,}" for it in arms.values())),
        ("failed (5xx)", *(_share(it["failed"]) for it in arms.values())),
        ("tried at two nodes", *(f"{it['tried_twice']:,}" for it in arms.values())),
        *(
            (f"{name}, ms (status 200)", *(_quantile(it["ms"], name) for it in arms.values()))
            for name in QUANTILES
        ),
    ]
    body = ["<h2>Compared: requests with a study, in canary steps where both versions answer</h2>"]
    body += [table(["", *(named[arm] for arm in arms)], rows) if arms else NOTHING]
    for what, title in (("status", "Status"), ("code", "Code")) if arms else ():
        keys = sorted({key for it in arms.values() for key in it[what]})
        counts = [(key or "none", *(f"{it[what].get(key, 0):,}" for it in arms.values()))
                  for key in keys]  # fmt: skip
        body += [f"<h2>{title}</h2>", table(["", *(named[arm] for arm in arms)], counts)]
    body += ["<h2>Scores</h2>", *(_head(head, it, named) for head, it in found["scores"].items())]
    body += [
        '<p class="note">In a canary step, chance decides which version answers a study. A '
        "mirrored request is answered by both. A distance beyond chance (5 %, tested once) is a "
        "difference of the versions, with two limits. The intervals take images as independent, "
        "but those of one study are alike. Canary steps are added up, so an hour in which the new "
        "version had a larger share weighs more in its numbers than in the old one's.</p>",
        "<h2>All requests of clients, by step</h2>",
        table(
            ("step", named["old"], named["new"], "without a study", ""),
            [
                (
                    it["step"],
                    *(f"{it[arm]:,}" for arm in ("old", "new", "without_study")),
                    "compared, with a study" if it["compared"] else "",
                )
                for it in found["steps"]
            ],
        ),
        '<p class="note">Requests that the gateway itself refused reached no version and are not '
        "counted here.</p>",
        "<h2>Journal</h2>",
        table(
            ("time", "entry", ""),
            [
                (
                    time.strftime("%F %T", time.localtime(it["time"])),
                    it["step"] or it["event"],
                    it["detail"] or "",
                )
                for it in found["journal"]
            ],
            text=True,
        ),
    ]
    title = f"{found['model']}: {versions['old'] or 'nothing'} to {versions['new']}"
    return page(f"{title}, {found['end']}", body)


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


def _head(head: str, by_arm: Json, named: dict[str, str]) -> str:
    labels = named | {
        "mirrored": named["old"].replace("old", "old, mirrored", 1),
        "shadow": named["new"].replace("new", "shadow", 1),
    }
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
        f'src="data:image/svg+xml;base64,{uri}"></figure>{table(columns, rows)}'
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
