"""The plots of a comparison of two models: each takes their paired scores and gives one SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import roc_curve

from train.evidence.plots import BLUE, GREY, ORANGE, drawing, unit_square
from train.statistics.binary import Bools, Floats

SIDES = {"a": ("A", BLUE, "-"), "b": ("B", ORANGE, "--")}


def scatter(a_N: Floats, b_N: Floats, flipped_N: Bools, thresholds: Sequence[float | None]) -> str:
    """Score of B over that of A; rows that are called differently stand out."""
    with drawing() as (svg, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        if None not in thresholds:
            axes.axvline(thresholds[0], color=GREY, lw=0.8, ls="--")
            axes.axhline(thresholds[1], color=GREY, lw=0.8, ls="--", label="thresholds")
        for rows_N, color, label in (
            (~flipped_N, BLUE, "same label"),
            (flipped_N, ORANGE, "flipped"),
        ):
            # Points as a picture within the SVG: thousands of them would make the page heavy.
            axes.plot(
                a_N[rows_N], b_N[rows_N], ".", color=color, ms=4, label=label, rasterized=True
            )
        unit_square(axes, "probability by A", "probability by B")
        axes.legend(loc="upper left")
    return str(svg.getvalue())


def bland_altman(a_N: Floats, b_N: Floats, mean: float, limits: Sequence[float] | None) -> str:
    """Difference over mean of the two scores, with the mean difference and limits of agreement."""
    with drawing() as (svg, axes):
        middle_N, difference_N = (a_N + b_N) / 2, b_N - a_N
        axes.plot(middle_N, difference_N, ".", color=BLUE, ms=4, rasterized=True)
        axes.axhline(0, color=GREY, lw=0.8, ls=":")
        axes.axhline(mean, color=ORANGE, lw=1.2, label=f"mean {mean:+.3f}")
        for limit in limits or ():
            axes.axhline(limit, color=ORANGE, lw=1, ls="--", label=f"limit {limit:+.3f}")
        axes.set(xlim=(-0.02, 1.02), xlabel="mean of A and B", ylabel="B − A")
        axes.legend(loc="best")
    return str(svg.getvalue())


def roc(truth_N: Bools, a_N: Floats, b_N: Floats, aucs: Mapping[str, float]) -> str:
    """Both ROC curves of the rows with a label; both classes must be there."""
    with drawing() as (svg, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        for (side, (name, color, style)), score_N in zip(SIDES.items(), (a_N, b_N), strict=True):
            false_positive, true_positive, _ = roc_curve(truth_N, score_N)
            label = f"{name}: AUC {aucs[side]:.3f}"
            axes.plot(false_positive, true_positive, color=color, ls=style, lw=1.6, label=label)
        unit_square(axes, "1 − specificity", "sensitivity")
        axes.legend(loc="lower right")
    return str(svg.getvalue())


def latency(milliseconds: Mapping[str, Sequence[float]]) -> str:
    """Share of images that are scored within a time, of both."""
    with drawing() as (svg, axes):
        for side, (name, color, style) in SIDES.items():
            taken = np.sort(milliseconds[side])
            part = np.arange(1, len(taken) + 1) / len(taken)
            axes.step(taken, part, where="post", color=color, ls=style, lw=1.6, label=name)
        axes.set(xlabel="milliseconds per image", ylabel="share of images", ylim=(0, 1.02))
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")
    return str(svg.getvalue())
