"""A comparison of two models on one self-contained page, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sonode.console import table
from sonode.measure_text import number, with_interval
from train import pages
from train.comparing import agreement_plots
from train.comparing.auc_difference import read_score
from train.measures.measure import Json

MOST = 200
"""Rows that a list of the page shows; compare.json has them all."""

Picture = Mapping[str, bytes]
"""The heat maps of a flip as PNG, by side."""


def page(
    found: Json,
    a: pd.DataFrame,
    b: pd.DataFrame,
    pictures: Sequence[tuple[Json, Picture]],
    how: str,
) -> str:
    """The page of what compare.json holds, the paired scores, and the flips that have heat maps.

    `how`: the method of the heat maps.
    """
    return pages.render(
        "Two archives on the same images",
        "comparing/agreement.html.j2",
        found=found,
        units=list(dict.fromkeys(unit for it in found["heads"].values() for unit in it["units"])),
        plots={
            score: _plots(score, a, b, head)
            for head in found["heads"].values()
            for score in head["shift"]
            if len(a)
        },
        latency=_latency(found["speed"]),
        pictures=[
            {
                **flip,
                **{
                    side: {**flip[side], "uri": pages.data_uri("image/png", png[side])}
                    for side in png
                },
            }
            for flip, png in pictures
        ],
        explain=how,
        carried=list(found["flips"][0]["carried"]) if found["flips"] else [],
        most=MOST,
    )


def show(found: Json) -> None:
    """Print what moved, head by head, and the verdict where there is a policy."""
    rows = []
    for name, head in found["heads"].items():
        flips = head["flips"]
        share = "" if flips["value"] is None else f" ({100 * flips['value']:.2f} %)"
        aucs = [
            f"{auc['on']} {with_interval({**auc, 'value': auc['difference']}, sign=True)}"
            for auc in head["auc"]
            if auc["difference"] is not None
        ]
        mean = [number(it["mean"]["value"], sign=True) for it in head["shift"].values()]
        cells = [number(head["kappa"]["value"]), f"{flips['count']}{share}", " ".join(mean)]
        rows.append([name, str(head["rows"]), *cells, "\n".join(aucs) or "no labels"])
    columns = ["head", "rows", "kappa", "flips", "mean shift", "AUC, B - A (95 %)"]
    table("A against B", columns, rows)
    if found["verdict"] is None:
        return
    rules = [
        [
            rule["rule"],
            rule["on"],
            with_interval(rule, sign=rule["limit"] < 0)
            + (f": {rule['reason']}" if rule["reason"] and rule["value"] is not None else ""),
            f"{rule['limit']:g}",
            rule["outcome"],
        ]
        for rule in found["verdict"]["rules"]
    ]
    columns = ["rule", "of", "found (95 %)", "limit", "outcome"]
    table(f"Verdict: {found['verdict']['outcome']}", columns, rules)


def _plots(score: str, a: pd.DataFrame, b: pd.DataFrame, head: Json) -> list[dict[str, str]]:
    """Title, alt text and image of each plot of a score."""
    name = score.partition("=")[0]
    (truth_N, a_N), (_, b_N) = (read_score(frame, score) for frame in (a, b))
    flipped_N = (a[f"{name}_label"] != b[f"{name}_label"]).to_numpy(bool)
    column = f"{name}_threshold"
    thresholds = [frame[column].iloc[0] if column in frame else None for frame in (a, b)]
    shift = head["shift"][score]
    mean = shift["mean"]["value"]
    found = [
        (
            "Scores of both",
            f"Probability of {score} by B over that by A",
            agreement_plots.scatter(a_N, b_N, flipped_N, thresholds),
        ),
        (
            "Bland-Altman",
            f"Difference of the probability of {score} over its mean: {mean:+.3f} in the mean",
            agreement_plots.bland_altman(a_N, b_N, mean, shift["limits"]),
        ),
    ]
    (auc, *_) = (auc for auc in head["auc"] if auc["score"] == score)
    if auc["difference"] is not None:
        known_N = ~np.isnan(truth_N)
        svg = agreement_plots.roc(truth_N[known_N] == 1, a_N[known_N], b_N[known_N], auc)
        found.append(("ROC, all labelled images", f"ROC curves of {score}", svg))
    return pages.plots(found)


def _latency(speed: Json | None) -> str | None:
    if speed is None:
        return None
    taken: dict[str, Any] = {side: speed[side]["latency_ms"] for side in ("a", "b")}
    return pages.svg_uri(agreement_plots.latency(taken))
