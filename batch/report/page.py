"""The run on one page: what was scored, how scores are spread and have moved, what failed and why.

It holds counts only: no id, name or URI of a row.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from batch.report import drift
from batch.report.run_summary import RunSummary
from sonode.page import page, table

_GIVEN = (
    '<p class="note">A probability given malignant, for example, is about malignant lesions only.'
    "</p>"
)


def render(summary: RunSummary, reference: Mapping[str, Sequence[int]]) -> str:
    """Lay out the report; `reference`: the training's histograms by head, where there are any."""
    model = summary.model
    failed = summary.by_status["failed"]
    none_found = summary.by_status.get("none_found", 0)
    share = failed / summary.rows if summary.rows else 0.0
    body = [
        table(
            ("", ""),
            [
                ("rows", f"{summary.rows:,}"),
                ("scored", f"{summary.by_status['ok']:,}"),
                ("failed", f"{failed:,} ({share:.2%})"),
                *(("no lesion found", f"{none:,}") for none in [none_found] if none),
                ("in this run", f"{summary.scored:,} scored or failed, {summary.carried:,} reused"),
                ("speed of this run", f"{summary.images_per_second:.1f} images/s"),
                ("engine", summary.engine),
                ("archive", f"sha256 {model['sha256']}"),
                ("explain", summary.explain or "none"),
                ("started, finished", f"{summary.started}, {summary.finished}"),
            ],
            text=True,
        ),
        "<h2>Scores</h2>",
        *(
            _histogram(
                head if summary.given[head] is None else f"{head} given {summary.given[head]}",
                *(counts, reference.get(head), summary.by_status["ok"]),
            )
            for head, counts in summary.scores.items()
        ),
        _GIVEN if any(summary.given.values()) else "",
        *_units(summary),
        "<h2>Drift</h2>",
        _drift(summary),
        "<h2>Failures</h2>",
        table(("code", "rows"), [(code, f"{n:,}") for code, n in summary.by_code.items()])
        if summary.by_code
        else "<p>None.</p>",
        "<h2>Cost</h2>",
        _costs(summary),
    ]
    title = f"{model['name']} {model['version']}, {summary.date}"
    return page(title, body)


def _units(summary: RunSummary) -> list[str]:
    """How many lesions, studies and patients there are; nothing where no column says which."""
    if not summary.units:
        return []
    rows = [
        (
            column,
            f"{unit['units']:,}",
            f"{unit['units_with_failed_images']:,}",
            f"{unit['units_spelt_alike']:,}",
            f"{unit['rows_without_id']:,}",
        )
        for column, unit in summary.units.items()
    ]
    return [
        "<h2>Lesions, studies, patients</h2>",
        table(
            ("by", "number", "with failed images", "spelt almost as another", "rows without id"),
            rows,
        ),
        '<p class="note">A file for each of these columns has the mean and the maximum of every '
        "head over the images that were scored.</p>",
    ]


def _histogram(what: str, counts: Sequence[int], reference: Sequence[int] | None, rows: int) -> str:
    """Bars of this run's shares, and the reference's as a line of steps."""
    shares = [count / max(sum(counts), 1) for count in counts]
    others = [count / max(sum(reference), 1) for count in reference] if reference else []
    top = max([*shares, *others, 1e-9])
    width, height = 16, 120
    bars = "".join(
        f'<rect x="{index * width}" y="{height * (1 - share / top):.1f}" width="{width - 2}" '
        f'height="{height * share / top:.1f}" fill="#4a7ab5"/>'
        for index, share in enumerate(shares)
    )
    steps = " ".join(
        f"{x},{height * (1 - share / top):.1f}"
        for index, share in enumerate(others)
        for x in (index * width, (index + 1) * width)
    )
    line = f'<polyline points="{steps}" fill="none" stroke="currentColor"/>' if others else ""
    side = width * len(counts)
    legend = "line: what the training was judged on" if others else "the card has no reference"
    return (
        f'<figure><svg width="{side}" height="{height + 18}" role="img">{bars}{line}'
        f'<text x="0" y="{height + 15}" font-size="12" fill="currentColor">0</text>'
        f'<text x="{side - 8}" y="{height + 15}" font-size="12" fill="currentColor">1</text></svg>'
        f"<figcaption>{html.escape(what)}: probability of {rows:,} rows; {legend}</figcaption>"
        "</figure>"
    )


def _drift(summary: RunSummary) -> str:
    rows = []
    for against, heads in summary.drift.items():
        for head, found in heads.items():
            numbers = [f"{found[name]:.3f}" for name in ("psi", "psi_by_chance", "psi_alarm", "ks")]
            rows.append((f"{head} against {against}", *numbers))
    if not rows:
        return "<p>Nothing to compare with: no reference in the card, no previous run.</p>"
    shifted = any(
        found["psi"] > found["psi_alarm"]
        for heads in summary.drift.values()
        for found in heads.values()
    )
    note = '<p class="warn">Scores have shifted: look at the images and their origin.</p>'
    return (
        (note if shifted else "")
        + table(("scores", "PSI", "by chance", "alarm from", "KS"), rows)
        + '<p class="note">Of histograms of 20 bins. PSI under 0.1 is usually read as no shift, '
        f"over {drift.SHIFTED:g} as a shift. “By chance” is the mean PSI of as many scores without "
        "a shift. Few scores show only a large shift. A change in the share of malignant lesions "
        "is a shift, too. The previous run is the better comparison, since a training cohort is "
        "not a screening population.</p>"
    )


def _costs(summary: RunSummary) -> str:
    total = sum(summary.seconds.values())
    rows = [
        (
            stage,
            f"{seconds:.1f} s",
            f"{1000 * seconds / summary.scored:.2f} ms" if summary.scored else "",
            f"{seconds / total:.0%}" if total else "",
        )
        for stage, seconds in sorted(summary.seconds.items(), key=lambda item: -item[1])
    ]
    return (
        table(("stage, slowest first", "all threads", "per row", "share"), rows)
        + '<p class="note">Stages overlap, so their sum is more than the time of the run.</p>'
    )
