"""Bands around curves: pointwise percentiles over draws of whole patients.

A `Curve` is a `Metric` with a value for each place of a grid. Shapes in names: N rows, B draws,
G places of the grid, U distinct scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from train.statistics.binary import Bools, Floats, by_score, divide
from train.statistics.bootstrap import CONFIDENCE, weights
from train.statistics.reliability import calibration_line, logit_of

Curve = Callable[[Bools, Floats, Floats, Floats], Floats]
"""(truth_N, score_N, weight_BN, grid_G) -> value_BG; NaN where undefined."""
RATES_AT = np.arange(51) / 50
PROBABILITIES_AT = np.arange(1, 50) / 50


@dataclass(frozen=True, kw_only=True)
class Band:
    """A 95 % band; of each place by itself, so that a whole curve lies outside more often."""

    at: list[float]
    low: list[float | None]
    """None, as `high`, where more than 5 % of the draws are undefined."""
    high: list[float | None]


def band(
    curve: Curve,
    truth_N: Bools,
    score_N: Floats,
    patient_N: npt.ArrayLike,
    grid_G: Floats,
    *,
    resamples: int,
    seed: int,
) -> Band | None:
    """The band of a curve; None without draws, or with fewer than two patients."""
    if not resamples or len(set(np.asarray(patient_N, dtype=str))) < 2:
        return None
    drawn_BG = np.concatenate(
        [
            curve(truth_N, score_N, weight_BN, grid_G)
            for weight_BN in weights(patient_N, resamples, seed)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    bounds: list[list[float | None]] = [[], []]
    for drawn_B in drawn_BG.T:
        defined = drawn_B[np.isfinite(drawn_B)]
        few = len(defined) < CONFIDENCE * len(drawn_B)
        pair = (None, None) if few else np.quantile(defined, [tail, 1 - tail]).tolist()
        for bound, found in zip(bounds, pair, strict=True):
            bound.append(None if found is None else round(found, 6))
    return Band(at=[round(float(it), 6) for it in grid_G], low=bounds[0], high=bounds[1])


def sensitivity_at(truth_N: Bools, score_N: Floats, weight_BN: Floats, grid_G: Floats) -> Floats:
    """The ROC curve: sensitivity at each share of false positives, linear between thresholds.

    Where the curve rises straight up it is the upper end. Undefined with one class only.
    """
    positive_BU, negative_BU = by_score(truth_N, score_N, weight_BN, descending=True)
    start_B1 = np.zeros((len(weight_BN), 1))
    true_BU, false_BU = (
        np.concatenate([start_B1, divide_by_last(its.cumsum(axis=1))], axis=1)
        for its in (positive_BU, negative_BU)
    )
    defined_B = np.isfinite(true_BU).all(axis=1) & np.isfinite(false_BU).all(axis=1)
    found_BG = np.full((len(weight_BN), len(grid_G)), np.nan)
    for draw in np.flatnonzero(defined_B):
        found_BG[draw] = np.interp(grid_G, false_BU[draw], true_BU[draw])
    return found_BG


def precision_at(truth_N: Bools, score_N: Floats, weight_BN: Floats, grid_G: Floats) -> Floats:
    """The PR curve: precision at the highest threshold that recalls at least each share.

    At 0 it is that of the highest threshold which recalls any. Undefined without positives.
    """
    positive_BU, negative_BU = by_score(truth_N, score_N, weight_BN, descending=True)
    hits_BU = positive_BU.cumsum(axis=1)
    precision_BU = divide(hits_BU, hits_BU + negative_BU.cumsum(axis=1))
    found_BG = np.full((len(weight_BN), len(grid_G)), np.nan)
    for draw in np.flatnonzero(hits_BU[:, -1] > 0):
        # Of whole numbers, with a little less than asked for: .3 of 10 is 3.
        wanted_G = np.maximum(grid_G * hits_BU[draw, -1] - 1e-9, 1e-9)
        found_BG[draw] = precision_BU[draw, np.searchsorted(hits_BU[draw], wanted_G)]
    return found_BG


def observed_at(truth_N: Bools, p_N: Floats, weight_BN: Floats, grid_G: Floats) -> Floats:
    """The logistic calibration curve (Cox 1958): the share to expect at each probability."""
    line_B2 = calibration_line(truth_N, p_N, weight_BN)
    found: Floats = expit(line_B2[:, :1] + line_B2[:, 1:] * logit_of(grid_G))
    return found


def divide_by_last(sum_BU: Floats) -> Floats:
    """Running sums as shares of the whole; NaN where the whole is 0."""
    return divide(sum_BU, np.repeat(sum_BU[:, -1:], sum_BU.shape[1], axis=1))
