"""The calibration of a probability on the rows that it is about."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from train.measures.measure import (
    CURVE_DIGITS,
    Json,
    Resampling,
    as_json,
    band_of,
    why_undefined,
)
from train.statistics import bands, reliability
from train.statistics.binary import Bools, Floats, Metric
from train.statistics.bootstrap import Interval, bootstrap

_CALIBRATION: dict[str, Metric] = {
    "brier": reliability.brier,
    "calibration_slope": reliability.calibration_slope,
    "calibration_intercept": reliability.calibration_intercept,
    "calibration_in_the_large": reliability.calibration_in_the_large,
    "ece": reliability.ece,
}
_NO_LINE = "the scores separate the classes, or are all equal: no finite regression line"
_REASONS = {"calibration_slope": _NO_LINE, "calibration_intercept": _NO_LINE}


def measure_calibration(
    truth_N: Bools,
    judged: tuple[Floats | None, str],
    patient_N: npt.NDArray[Any],
    how: Resampling,
) -> Json:
    """Measures on the rows that a probability applies to; `judged` names these."""
    judged_N, words = judged
    if judged_N is None:
        nothing = Interval(value=None, low=None, high=None, resamples=0, undefined=0)
        none = {name: as_json(nothing, words) for name in _CALIBRATION}
        lines = {"calibration_curve": None, "decision_curve": None}
        return {"judged": None, **none, "reliability": [], **lines}
    found = bootstrap(_CALIBRATION, truth_N, judged_N, patient_N, **vars(how))
    classes = why_undefined(truth_N)
    curve = reliability.decision_curve(truth_N, judged_N)
    drawn = (truth_N, judged_N, patient_N)
    measures = {
        name: as_json(interval, classes or _REASONS.get(name, "undefined"))
        for name, interval in found.items()
    }
    right = reliability.ece_if_right(judged_N, patient_N, **vars(how))
    if right is not None:
        measures["ece"] |= _safe(found["ece"], right[1])
        measures["ece"]["if_right"] = dict(zip(("mean", "high"), right, strict=True))
    return {
        "judged": words,
        **measures,
        "reliability": reliability.reliability_curve(truth_N, judged_N),
        "calibration_curve": None if classes else _calibration_curve(*drawn, how),
        "decision_curve": curve
        and {
            **curve,
            "band": band_of(reliability.net_benefit_at, *drawn, np.array(curve["threshold"]), how),
        },
    }


def _safe(drawn: Interval, if_right: float) -> Json:
    """The interval of an ECE, see `reliability.ece`; `if_right`: the 95th percentile if right."""
    if drawn.value is None or drawn.low is None or drawn.high is None:
        return {}
    low = 0.0 if drawn.value <= if_right else max(0.0, 2 * drawn.value - drawn.high)
    return {"low": low, "high": drawn.high}


def _calibration_curve(
    truth_N: Bools, p_N: Floats, patient_N: npt.NDArray[Any], how: Resampling
) -> Json | None:
    """The logistic calibration curve; None where there is no finite one."""
    grid_G = bands.PROBABILITIES_AT
    (value_G,) = bands.observed_at(truth_N, p_N, np.ones((1, len(p_N))), grid_G)
    if np.isnan(value_G).any():
        return None
    band = band_of(bands.observed_at, truth_N, p_N, patient_N, grid_G, how)
    return {
        "probability": grid_G.tolist(),
        "observed": [round(float(it), CURVE_DIGITS) for it in value_G],
        "band": band,
    }
