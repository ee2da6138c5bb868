"""A measure as JSON, with what it was counted on; `binary_head` and others have the measures.

A measure is {value, low, high, resamples, undefined_resamples}; where it is undefined, value, low
and high are null and `reason` says why; where it has a value and no interval, `no_interval` does.
A proportion of none or of all has a Wilson interval in place of draws that are all alike, and says
so in `interval`. Nothing here is ever NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from sonode.console import counted
from sonode.wilson import wilson
from train.statistics import bands
from train.statistics.binary import Bools, Floats
from train.statistics.bootstrap import Interval

Json = dict[str, Any]

CURVE_DIGITS = 6
"""Decimals of the points of a curve."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are drawn."""

    resamples: int
    seed: int


def as_json(
    interval: Interval, reason: str, counted_N: npt.NDArray[Any] | Sequence[Any] | None = None
) -> Json:
    """The measure as JSON; `reason` is kept only where it is undefined.

    `counted_N`: of a proportion, the patient of each row that it is counted on. Where the event is
    in no row or in all, every draw is alike and says nothing of how rare it may be: the interval is
    Wilson's then, of patients, since a patient's images resemble each other.
    """
    found = asdict(interval)
    found["undefined_resamples"] = undefined = found.pop("undefined")
    alike = found.pop("alike")
    if interval.value is None:
        return {**found, "reason": reason}
    patients = 0 if counted_N is None else len(set(counted_N))
    if patients and interval.value in (0, 1):
        low, high = wilson(int(interval.value) * patients, patients) or (None, None)
        return {
            **found,
            "low": low,
            "high": high,
            "interval": f"Wilson, {counted(patients, 'patient')}",
        }
    if interval.low is None:
        few = f"{undefined} of {interval.resamples} draws are undefined"
        found["no_interval"] = (
            ("all draws are equal" if alike else few)
            if interval.resamples
            else "no draws, or one patient only"
        )
    return found


def why_undefined(truth_N: Bools) -> str | None:
    """Why a measure that needs both classes is undefined here; None where both are there."""
    positive, negative = int(truth_N.sum()), int((~truth_N).sum())
    if not positive and not negative:
        return "no row has a label"
    if not positive or not negative:
        return f"one class only: {positive} positive, {negative} negative"
    return None


def band_of(
    curve: bands.Curve,
    truth_N: Bools,
    p_N: Floats,
    patient_N: npt.NDArray[Any],
    grid_G: Floats,
    how: Resampling,
) -> Json | None:
    """A curve's band over the grid, as JSON; None where it has none."""
    found = bands.band(curve, truth_N, p_N, patient_N, grid_G, **vars(how))
    return None if found is None else asdict(found)
