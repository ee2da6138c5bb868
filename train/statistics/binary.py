"""Measures of a binary prediction, written so that a bootstrap of thousands is one array operation.

A `Metric` takes the labels, the scores and B sets of row weights, and gives B values; NaN marks
where it is undefined. `value` is the plain measure: all weights 1, None where undefined.

Shapes in names: N rows (images or patients), B sets of weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sonode.console import counted
from sonode.wilson import wilson

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Metric = Callable[[Any, Floats, Floats], Floats]
"""(truth_N, score_N, weight_BN) -> value_B; NaN where undefined."""


def value(metric: Metric, truth_N: Any, score_N: Floats) -> float | None:
    """The metric of the rows as they are; None where it is undefined."""
    if len(truth_N) == 0:
        return None
    found = float(metric(truth_N, score_N, np.ones((1, len(truth_N))))[0])
    return found if math.isfinite(found) else None


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient; NaN where the denominator is 0."""
    out: Floats = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def conditional(joint: Floats, given: Floats) -> Floats:
    """P(a | b) of P(a and b) and P(b).

    0 where P(b) is 0: the quotient would be one of rounding errors.
    """
    return np.divide(joint, given, out=np.zeros_like(joint), where=given > 0)


def by_score(
    truth_N: Bools, score_N: Floats, weight_BN: Floats, *, descending: bool
) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives at each distinct score (B, U), in order of score."""
    order_N = np.argsort(-score_N if descending else score_N, kind="stable")
    starts_U = np.flatnonzero(np.diff(score_N[order_N], prepend=np.inf))
    ordered_BN, truth_N = weight_BN[:, order_N], truth_N[order_N]
    positive_BU = np.add.reduceat(ordered_BN * truth_N, starts_U, axis=1)
    negative_BU = np.add.reduceat(ordered_BN * ~truth_N, starts_U, axis=1)
    return positive_BU, negative_BU


def roc_auc(truth_N: Bools, score_N: Floats, weight_BN: Floats) -> Floats:
    """Area under the ROC curve: P(positive scores above negative), ties one half (Mann-Whitney).

    Undefined with one class only.
    """
    positive_BU, negative_BU = by_score(truth_N, score_N, weight_BN, descending=False)
    below_BU = negative_BU.cumsum(axis=1) - negative_BU
    ordered_B = (positive_BU * (below_BU + negative_BU / 2)).sum(axis=1)
    return divide(ordered_B, positive_BU.sum(axis=1) * negative_BU.sum(axis=1))


def average_precision(truth_N: Bools, score_N: Floats, weight_BN: Floats) -> Floats:
    """Area under the precision-recall curve as the step sum of precision over recall gained.

    Not interpolated (Davis & Goadrich 2006). Chance level is the prevalence. Undefined with one
    class only.
    """
    positive_BU, negative_BU = by_score(truth_N, score_N, weight_BN, descending=True)
    hits_BU = positive_BU.cumsum(axis=1)
    called_BU = hits_BU + negative_BU.cumsum(axis=1)
    precision_BU = np.nan_to_num(divide(hits_BU, called_BU))  # nothing called: no recall gained
    all_positive_B = np.where(negative_BU.any(axis=1), positive_BU.sum(axis=1), 0.0)
    return divide((positive_BU * precision_BU).sum(axis=1), all_positive_B)


def share(event_N: Bools | Floats, _: Floats, weight_BN: Floats) -> Floats:
    """The weighted share of rows where the event is true; of numbers, their weighted mean."""
    return divide(weight_BN @ event_N, weight_BN.sum(axis=1))


def mean(_: Any, value_N: Floats, weight_BN: Floats) -> Floats:
    """The weighted mean of what stands for the scores."""
    return share(value_N, value_N, weight_BN)


PROPORTIONS: dict[str, Callable[[Bools, Bools], Bools]] = {
    "accuracy": lambda truth_N, called_N: np.ones_like(truth_N),
    "sensitivity": lambda truth_N, called_N: truth_N,
    "specificity": lambda truth_N, called_N: ~truth_N,
    "precision": lambda truth_N, called_N: called_N,
    "npv": lambda truth_N, called_N: ~called_N,
}
"""Shares of rows that are called rightly, and the rows that each is counted on, by truth and call;
positive is p > threshold, as everywhere here. Undefined where there is no such row."""


def _rightly(
    name: str, truth_N: Bools, p_N: Floats, weight_BN: Floats, *, threshold: float
) -> Floats:
    called_N = p_N > threshold
    on_N = PROPORTIONS[name](truth_N, called_N)
    return divide(weight_BN @ (on_N & (called_N == truth_N)), weight_BN @ on_N)


accuracy, sensitivity, specificity, precision, npv = (partial(_rightly, it) for it in PROPORTIONS)


def f1(truth_N: Bools, p_N: Floats, weight_BN: Floats, *, threshold: float) -> Floats:
    """2 TP / (2 TP + FP + FN); undefined where nothing is positive or called so."""
    called_N = p_N > threshold
    return divide(
        2 * (weight_BN @ (truth_N & called_N)), weight_BN @ truth_N + weight_BN @ called_N
    )


def lr_positive(truth_N: Bools, p_N: Floats, weight_BN: Floats, *, threshold: float) -> Floats:
    """Sensitivity / (1 - specificity): by how much a positive call raises the odds.

    Undefined with one class only, and where no negative is called positive (it has no bound).
    """
    return divide(
        sensitivity(truth_N, p_N, weight_BN, threshold=threshold),
        divide(weight_BN @ (~truth_N & (p_N > threshold)), weight_BN @ ~truth_N),
    )


def lr_negative(truth_N: Bools, p_N: Floats, weight_BN: Floats, *, threshold: float) -> Floats:
    """(1 - sensitivity) / specificity; undefined with one class only, and at a specificity of 0."""
    return divide(
        divide(weight_BN @ (truth_N & (p_N <= threshold)), weight_BN @ truth_N),
        specificity(truth_N, p_N, weight_BN, threshold=threshold),
    )


def confusion(truth_N: Bools, p_N: Floats, threshold: float) -> dict[str, int]:
    """Count the four outcomes at `threshold`."""
    called_N = p_N > threshold
    return {
        "true_positive": int((truth_N & called_N).sum()),
        "false_negative": int((truth_N & ~called_N).sum()),
        "false_positive": int((~truth_N & called_N).sum()),
        "true_negative": int((~truth_N & ~called_N).sum()),
    }


def wilson_of_none(patients: int) -> dict[str, float | str]:
    """How far a difference of 0 may lie from 0, as `low`, `high` and `interval` of a measure.

    For where no row differs, so that every draw is 0: Wilson's upper bound of no patient in so
    many.
    """
    _, most = wilson(0, patients) or (None, 1.0)
    return {"low": -most, "high": most, "interval": f"Wilson, {counted(patients, 'patient')}"}


def newcombe(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> dict[str, float]:
    """The interval, as `low` and `high`, of the difference of two cohorts' rates, first - second.

    Each is a rate with its own interval; they are joined as Newcombe (1998, method 10) joins
    Wilson's, and Zou & Donner (2008, doi 10.1002/sim.3095) any.
    """
    (one, low_1, high_1), (two, low_2, high_2) = first, second
    return {
        "low": one - two - math.hypot(one - low_1, high_2 - two),
        "high": one - two + math.hypot(high_1 - one, two - low_2),
    }


def choose_threshold(truth_N: Bools, p_N: Floats, rule: str) -> float | None:
    """The threshold in (0, 1) that `rule` picks; midway between neighbouring scores.

    `youden`: the largest sensitivity + specificity - 1 (Youden 1950), at a tie the lower one,
    which misses fewer. `sensitivity_S`, for example `sensitivity_0.90`: the highest threshold
    with a sensitivity of at least S. Choose on validation, never on what is evaluated.

    Returns None where the rule has no answer: one class only, or no threshold that is better than
    to call all rows alike (`youden`), no positives, all scores equal, or positives with a score of
    exactly 0 that a threshold above 0 cannot reach.

    Raises ValueError: no such rule.
    """
    wanted = re.fullmatch(r"sensitivity_(0\.\d+|1(?:\.0+)?)", rule)
    if rule != "youden" and wanted is None:
        raise ValueError(f"rule {rule!r}: use youden or sensitivity_S with S in 0..1")
    scores_U = np.unique(np.append(p_N, 0.0) if wanted else p_N)
    middle = (scores_U[:-1] + scores_U[1:]) / 2
    # Where two scores are neighbouring floats their middle rounds to one of them: the lower.
    candidates = np.where(middle < scores_U[1:], middle, scores_U[:-1])
    candidates = candidates[(candidates > 0) & (candidates < 1)]
    positive, negative = np.sort(p_N[truth_N]), np.sort(p_N[~truth_N])
    if not len(candidates) or not len(positive) or not (wanted or len(negative)):
        return None
    above = len(positive) - np.searchsorted(positive, candidates, side="right")
    if wanted is None:
        below = np.searchsorted(negative, candidates, side="right")
        # In whole numbers, so that a tie is a tie.
        youden = above * len(negative) + below * len(positive)
        if youden.max() <= len(positive) * len(negative):  # sensitivity + specificity of 1
            return None
        return float(candidates[int(np.argmax(youden))])
    # In whole numbers too: 0.55 x 100 is more than 55 as floats, and would ask for 56.
    enough = candidates[above >= math.ceil(Fraction(wanted[1]) * len(positive))]
    return float(enough[-1]) if len(enough) else None


@dataclass(frozen=True, kw_only=True)
class Inconsistency:
    """Rows where the child is called positive and its parent negative, by the parent's truth."""

    type_1_N: Bools
    """Parent negative in truth: the child head is wrong (ALNM in a benign lesion)."""
    type_2_N: Bools
    """Parent positive in truth: the parent head is wrong (a malignant lesion called benign)."""
    unknown_N: Bools
    """The parent's label is missing, so it is unknown which head is wrong."""


def inconsistency(
    parent_truth_N: Floats,
    parent_p_N: Floats,
    child_p_N: Floats,
    *,
    parent_threshold: float = 0.5,
    child_threshold: float = 0.5,
) -> Inconsistency:
    """Find the paper's two inconsistency errors (derived: it gives no formula).

    `parent_truth_N` is 0, 1 or NaN for missing. The one incoherent cell is child > threshold with
    parent <= threshold.
    """
    incoherent_N = (child_p_N > child_threshold) & (parent_p_N <= parent_threshold)
    return Inconsistency(
        type_1_N=incoherent_N & (parent_truth_N == 0),
        type_2_N=incoherent_N & (parent_truth_N == 1),
        unknown_N=incoherent_N & np.isnan(parent_truth_N),
    )
