"""The report's plots: each takes a part of `metrics.json` and gives one SVG image as text."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sonode.measure_text import number
from train.measures.measure import Json

# Okabe & Ito's palette: distinct to readers with any colour vision, and in grey print.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
_LINES = [(color, style) for style in ("-", "--", ":") for color in (BLUE, ORANGE, GREEN, GREY)]
LEVELS = {
    "image": ("per image", BLUE, "-"),
    "lesion": ("per lesion", GREEN, "-."),
    "patient": ("per patient", ORANGE, "--"),
}
BANDS = ("image", "patient")
"""Whose bands are drawn: a third would hide them."""
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, and searchable
    "svg.hashsalt": "sonode",  # the same figures give the same bytes
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}


@contextmanager
def drawing(
    *,
    rows: Sequence[int] = (1,),
    png: Path | None = None,
    size: tuple[float, float] = (4.4, 3.9),
) -> Iterator[list[Any]]:
    """Yield a buffer, which has the SVG at the end, and axes one above the other, high as `rows`.

    `png`: a file to write the same picture to. `size`: width and height in inches.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(
            len(rows), sharex=True, squeeze=False, gridspec_kw={"height_ratios": rows}
        )[:, 0]
        buffer = io.StringIO()
        yield [buffer, *axes]
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        if png is not None:
            png.parent.mkdir(exist_ok=True)
            figure.savefig(png, dpi=300)


def unit_square(axes: Axes, x: str, y: str) -> None:
    """Set both axes from 0 to 1, with their titles."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)


def shade(axes: Axes, band: Json | None, color: str) -> None:
    """Fill a band of `measures`, where it is defined."""
    if band is not None:
        low, high = (
            [np.nan if it is None else it for it in band[side]] for side in ("low", "high")
        )
        axes.fill_between(band["at"], low, high, color=color, alpha=0.15, lw=0)


def _roc_curve(
    axes: Axes, name: str, measures: Json, color: str, style: str, *, band: bool = True
) -> None:
    """Plot the curve of one unit's measures, where it has one."""
    if measures["curves"] is not None:
        curve = measures["curves"]["roc"]
        label = f"{name}: AUC {number(measures['roc_auc']['value'])}"
        rates = curve["false_positive_rate"], curve["true_positive_rate"]
        axes.plot(*rates, color=color, ls=style, lw=1.6, label=label)
        if band:
            shade(axes, curve["band"], color)


def roc(levels: Mapping[str, Json]) -> str:
    """ROC curves per image and per patient, with the image curve's operating points."""
    with drawing() as (svg, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        for level, (name, color, style) in LEVELS.items():
            measures = levels.get(level)
            if measures is not None:
                _roc_curve(axes, name, measures, color, style, band=level in BANDS)
        for (point, found), marker in zip(
            levels["image"]["operating_points"].items(), "osD^v*" * 9, strict=False
        ):
            if found["sensitivity"]["value"] is None or found["specificity"]["value"] is None:
                continue
            place = 1 - found["specificity"]["value"], found["sensitivity"]["value"]
            label = f"{point} (threshold {found['threshold']:.2f})"
            axes.plot(*place, marker, ls="", color=BLUE, mfc="white", ms=6, label=label)
        unit_square(axes, "1 − specificity", "sensitivity")
        axes.legend(loc="lower right")
    return str(svg.getvalue())


def roc_overlaid(several: Mapping[str, Json], png: Path | None = None) -> str:
    """ROC curves of several cohorts or models, of the measures of one unit, with their bands."""
    with drawing(png=png) as (svg, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        for (name, measures), (color, style) in zip(several.items(), _LINES, strict=False):
            _roc_curve(axes, name, measures, color, style)
        unit_square(axes, "1 − specificity", "sensitivity")
        axes.legend(loc="lower right")
    return str(svg.getvalue())


def precision_recall(levels: Mapping[str, Json]) -> str:
    """Precision over recall; the dotted lines are the prevalences, which chance reaches."""
    with drawing() as (svg, axes):
        for level, (name, color, style) in LEVELS.items():
            measures = levels.get(level)
            if measures is None or measures["curves"] is None:
                continue
            curve = measures["curves"]["pr"]
            label = f"{name}: AP {number(measures['pr_auc']['value'])}"
            axes.step(
                curve["recall"],
                curve["precision"],
                where="pre",
                color=color,
                ls=style,
                lw=1.4,
                label=label,
            )
            if level in BANDS:
                shade(axes, curve["band"], color)
            axes.axhline(measures["positive"] / measures["rows"], color=color, lw=0.8, ls=":")
        unit_square(axes, "recall (sensitivity)", "precision")
        axes.legend(loc="best")
    return str(svg.getvalue())


def calibration(measures: Json) -> str:
    """Observed share over mean probability per bin with Wilson intervals, and the logistic curve
    with its band; below, rows per bin.
    """
    bins = measures["reliability"]
    with drawing(rows=(4, 1)) as (svg, axes, counts):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":", label="ideal")
        x, y = ([one[key] for one in bins] for key in ("mean_probability", "observed"))
        below = [one["observed"] - one["observed_low"] for one in bins]
        above = [one["observed_high"] - one["observed"] for one in bins]
        drawn_as = {"color": BLUE, "marker": "o", "ms": 4, "lw": 1.2, "capsize": 2}
        axes.errorbar(x, y, [below, above], **drawn_as, label="bins, 95 % interval")
        if line := measures["calibration_curve"]:
            label = "logistic" if line["band"] is None else "logistic, 95 % band"
            axes.plot(line["probability"], line["observed"], color=ORANGE, lw=1.2, label=label)
            shade(axes, line["band"], ORANGE)
        slope, error = (number(measures[it]["value"]) for it in ("calibration_slope", "ece"))
        axes.set_title(f"slope {slope}, ECE {error}", fontsize=9, loc="left")
        unit_square(axes, "", "observed share")
        axes.legend(loc="best", fontsize=8)
        middle = [(one["low"] + one["high"]) / 2 for one in bins]
        counts.bar(middle, [one["n"] for one in bins], width=0.09, color=BLUE)
        counts.set(xlabel="predicted probability", ylabel="images")
    return str(svg.getvalue())


def calibration_lines(several: Mapping[str, Json]) -> str:
    """Logistic calibration curves, each with its band."""
    with drawing() as (svg, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":", label="ideal")
        for (name, line), color, style in zip(
            several.items(), (ORANGE, BLUE, GREEN), ("--", "-.", "-"), strict=False
        ):
            axes.plot(
                line["probability"], line["observed"], color=color, ls=style, lw=1.6, label=name
            )
            shade(axes, line["band"], color)
        unit_square(axes, "predicted probability", "observed share")
        axes.legend(loc="upper left", fontsize=8)
    return str(svg.getvalue())


def decision(measures: Json) -> str:
    """Net benefit of acting on the model, on everyone and on no one."""
    curve = measures["decision_curve"]
    with drawing() as (svg, axes):
        threshold = curve["threshold"]
        axes.plot(threshold, curve["model"], color=BLUE, lw=1.6, label="model")
        shade(axes, curve["band"], BLUE)
        axes.plot(threshold, curve["treat_all"], color=ORANGE, lw=1.2, ls="--", label="treat all")
        axes.axhline(0, color=GREY, lw=1, label="treat none")
        top = max(measures["positive"] / measures["rows"], 0.05)
        axes.set(xlim=(0, 1), ylim=(-0.3 * top, 1.1 * top))
        axes.set(xlabel="threshold probability", ylabel="net benefit per image")
        axes.legend(loc="best")
    return str(svg.getvalue())


class Profile(NamedTuple):
    """How a head's heat maps respond over the distance to the centre of the crop."""

    radius: Sequence[float]
    """In half sides of the crop."""
    mean: Sequence[float]
    sd: Sequence[float] | None
    """Over images; None of a single one."""
    images: int
    cells: Sequence[int]
    """Rows and columns of a map."""

    @property
    def resolution(self) -> str:
        """How fine the maps are, for a caption."""
        rows, columns = self.cells
        text = f"A map has {rows} x {columns} cells"
        if max(rows, columns) <= 2:
            text += ", which lie all as far from the centre: the lines are level in any case"
        return f"{text}."


def cam_over_distance(profiles: Mapping[str, Profile], png: Path | None = None) -> str:
    """Mean heat-map response over the distance to the crop's centre ± SD, one line a head."""
    with drawing(png=png) as (svg, axes):
        for (head, its), (color, ls) in zip(profiles.items(), _LINES, strict=False):
            axes.plot(its.radius, its.mean, color=color, ls=ls, lw=1.6, label=head)
            if its.sd is not None:
                low, high = (np.add(its.mean, sign * np.array(its.sd)) for sign in (-1, 1))
                axes.fill_between(its.radius, low, high, color=color, alpha=0.15, lw=0)
        axes.set(xlabel="distance to the centre (half sides of the crop)", ylabel="response")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.legend()
    return str(svg.getvalue())
