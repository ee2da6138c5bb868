"""The cluster bootstrap: whole patients are drawn, because a patient's images resemble each other.

Percentile intervals (Efron & Tibshirani 1993, ch. 13). A draw of patients is a set of row weights,
so a `Metric` sees many draws in one call. Shapes in names: N rows, B draws, P patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from train.statistics.binary import Bools, Floats, Metric, value

CONFIDENCE = 0.95  # of every interval and band
_CELLS = 2_000_000  # weights held at once: 16 MB
_ROUNDING = 1e-12  # by which sums of the same numbers in other orders may differ


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measure and its percentile interval; None where undefined."""

    value: float | None
    low: float | None
    """None, as `high`, where more draws are undefined than the interval may leave out (5 % of
    them at a confidence of .95): what is left describes luckier draws than the cohort's own. With
    two positive patients beside 40 others 13 % are undefined, and of 300 simulated intervals of the
    AUC that left them out 68 % held the truth. None, too, where all draws are `alike`."""
    high: float | None
    resamples: int
    """Draws made; 0 where the measure itself is undefined or there is one patient only."""
    undefined: int
    """Draws in which the measure was undefined (one class only, say); the interval leaves them
    out."""
    alike: bool = False
    """All draws gave the same number (an AUC of 1 is 1 in each), or in `bootstrap_unpaired` all of
    one side: they do not show how far it may lie from the truth."""


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """A paired difference, the first minus the second."""

    p_value: float | None
    """Two-sided, of no difference: twice the smaller share of draws at or beyond 0, one draw
    added to both counts (Davison & Hinkley 1997, ch. 4); never below 2 / (resamples + 1), nor below
    what a permutation of so few patients could show: where both of two patients were lost every
    draw has both, and the exact p is 1/2. None where there are no draws, too many are undefined,
    or one side alone of two cohorts varies."""


def weights(patient_N: npt.ArrayLike, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield row weights (b, N), `resamples` rows in all: how often each row's patient is drawn."""
    patients_P, code_N = np.unique(np.asarray(patient_N, dtype=str), return_inverse=True)
    n = len(patients_P)
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // len(code_N))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn_BP = generator.multinomial(n, np.full(n, 1 / n), size=size)
        yield drawn_BP[:, code_N].astype(np.float64)


def bootstrap(
    metrics: Mapping[str, Metric],
    truth_N: Any,
    score_N: Floats,
    patient_N: npt.ArrayLike,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """Interval of each metric over the same draws of patients; 0 resamples give values alone."""
    values = {name: value(metric, truth_N, score_N) for name, metric in metrics.items()}
    if len(set(np.asarray(patient_N, dtype=str))) < 2:
        resamples = 0
    defined = {name: metrics[name] for name, found in values.items() if found is not None}
    draws: dict[str, list[Floats]] = {name: [] for name in metrics}
    if resamples and defined:
        for weight_BN in weights(patient_N, resamples, seed):
            for name, metric in defined.items():
                draws[name].append(metric(truth_N, score_N, weight_BN))
    return {
        name: _interval(found, np.concatenate([*draws[name], np.empty(0)]))
        for name, found in values.items()
    }


def bootstrap_difference(
    metric: Metric,
    truth_N: Any,
    first_N: Floats,
    second_N: Floats,
    patient_N: npt.ArrayLike,
    *,
    resamples: int,
    seed: int = 0,
    apart_N: Bools | None = None,
) -> Difference:
    """Interval and p-value of metric(first) - metric(second) over the same draws of patients.

    `apart_N`: the rows in which the metric sees a difference; by default those of unequal scores.
    """
    draws: list[Floats] = []

    def difference(truth_N: Any, _: Floats, weight_BN: Floats) -> Floats:
        found = metric(truth_N, first_N, weight_BN) - metric(truth_N, second_N, weight_BN)
        found[np.abs(found) < _ROUNDING] = 0.0  # else p would count a tie on one side
        draws.append(found)
        return found

    interval = bootstrap(
        {"": difference}, truth_N, first_N, patient_N, resamples=resamples, seed=seed
    )[""]
    drawn = np.concatenate([*draws[1:], np.empty(0)])  # the first call is the value itself
    if apart_N is None:
        apart_N = (first_N != second_N).any(axis=tuple(range(1, first_N.ndim)))
    # The two change places in each of those patients, or not.
    swaps = 2 ** len(set(np.asarray(patient_N, dtype=str)[apart_N]))
    return Difference(**vars(interval), p_value=_p_value(interval, drawn, swaps))


def bootstrap_unpaired(
    metric: Metric,
    first: tuple[Any, Floats, npt.ArrayLike],
    second: tuple[Any, Floats, npt.ArrayLike],
    *,
    resamples: int,
    seed: int = 0,
) -> Difference:
    """Interval and p-value of metric(first) - metric(second) of other patients, drawn apart.

    Each is truth (N,), score (N,) and patient (N,). Where one of the two is alike in all its draws
    (5 of 5 found), those of the difference would show how the other varies alone: neither interval
    nor p-value.
    """
    values = [value(metric, truth_N, score_N) for truth_N, score_N, _ in (first, second)]
    if values[0] is None or values[1] is None:
        return Difference(value=None, low=None, high=None, resamples=0, undefined=0, p_value=None)
    draws = []
    for order, (truth_N, score_N, patient_N) in enumerate((first, second)):
        few = len(set(np.asarray(patient_N, dtype=str))) < 2
        drawn = [
            metric(truth_N, score_N, weight_BN)
            for weight_BN in weights(patient_N, 0 if few else resamples, seed + order)
        ]
        draws.append(np.concatenate([*drawn, np.empty(0)]))
    if not all(map(len, draws)):
        draws = [np.empty(0), np.empty(0)]
    drawn_B = draws[0] - draws[1]
    interval = _interval(values[0] - values[1], drawn_B)
    if interval.low is not None and any(_interval(None, its).alike for its in draws):
        facts = vars(interval) | {"low": None, "high": None, "alike": True}
        return Difference(**facts, p_value=None)
    sizes = [len(set(np.asarray(patient_N, dtype=str))) for _, _, patient_N in (first, second)]
    swaps = math.comb(sum(sizes), sizes[0])
    return Difference(**vars(interval), p_value=_p_value(interval, drawn_B, swaps))


def _p_value(interval: Interval, drawn_B: Floats, permutations: int) -> float | None:
    """See `Difference.p_value`."""
    if interval.low is None and not interval.alike:
        return None
    defined = drawn_B[np.isfinite(drawn_B)]
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * max((beyond + 1) / (len(defined) + 1), 1 / permutations))


def _interval(found: float | None, drawn_B: Floats) -> Interval:
    defined = drawn_B[np.isfinite(drawn_B)]
    undefined = len(drawn_B) - len(defined)
    facts: dict[str, Any] = {"resamples": len(drawn_B), "undefined": undefined}
    if not len(defined) or undefined > (1 - CONFIDENCE) * len(drawn_B):
        return Interval(value=found, low=None, high=None, **facts)
    if np.ptp(defined) < _ROUNDING:
        return Interval(value=found, low=None, high=None, alike=True, **facts)
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(bound) for bound in np.quantile(defined, [tail, 1 - tail]))
    return Interval(value=found, low=low, high=high, **facts)
