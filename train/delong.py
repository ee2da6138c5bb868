"""DeLong's variance of the ROC AUC, its interval, and the paired test of two AUCs.

DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837-845, by midranks as in Sun & Xu, IEEE
Signal Processing Letters 21 (2014) 1389-1393, doi 10.1109/LSP.2014.2337313. Rows must be
independent: give one row per patient, or say that there are more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from train.statistics import Bools, Floats


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """An AUC with its standard error and interval."""

    auc: float
    se: float
    low: float | None
    """Interval on the logit scale (Pepe 2003), which stays within 0..1; None at an AUC of 0 or 1,
    where the standard error is 0 and says nothing."""
    high: float | None


@dataclass(frozen=True, kw_only=True)
class DeLongTest:
    """Two correlated AUCs compared; two-sided."""

    difference: float
    """AUC of the first scores minus that of the second."""
    se: float
    low: float
    """Wald interval of the difference."""
    high: float
    z: float
    p_value: float


def _placements(truth_N: Bools, score_N: Floats) -> tuple[Floats, Floats]:
    """Share of negatives below each positive, and of positives above each negative; ties half."""
    positive, negative = score_N[truth_N], score_N[~truth_N]
    rank = rankdata(np.concatenate([positive, negative]))
    above = (rank[: len(positive)] - rankdata(positive)) / len(negative)
    below = 1 - (rank[len(positive) :] - rankdata(negative)) / len(positive)
    return above, below


def _variance(above: Floats, below: Floats) -> float:
    return float(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))


def _enough(truth_N: Bools) -> bool:
    return bool(truth_N.sum() >= 2 and (~truth_N).sum() >= 2)


def delong(truth_N: Bools, score_N: Floats, confidence: float = 0.95) -> DeLong | None:
    """The AUC with DeLong's standard error; None with fewer than two rows of either class."""
    if not _enough(truth_N):
        return None
    above, below = _placements(truth_N, score_N)
    auc, se = float(above.mean()), math.sqrt(_variance(above, below))
    if se == 0 or not 0 < auc < 1:
        return DeLong(auc=auc, se=se, low=None, high=None)
    half = float(norm.ppf((1 + confidence) / 2)) * se / (auc * (1 - auc))
    low, high = expit(logit(auc) - half), expit(logit(auc) + half)
    return DeLong(auc=auc, se=se, low=float(low), high=float(high))


def delong_test(
    truth_N: Bools, first_N: Floats, second_N: Floats, confidence: float = 0.95
) -> DeLongTest | None:
    """Compare the AUCs of two scores of the same rows.

    None with fewer than two rows of either class, or where the difference has no variance (the
    two scores rank alike).
    """
    if not _enough(truth_N):
        return None
    one, two = _placements(truth_N, first_N), _placements(truth_N, second_N)
    above, below = one[0] - two[0], one[1] - two[1]
    difference, se = float(above.mean()), math.sqrt(_variance(above, below))
    if se == 0:
        return None
    z, half = difference / se, float(norm.ppf((1 + confidence) / 2)) * se
    return DeLongTest(
        difference=difference,
        se=se,
        low=difference - half,
        high=difference + half,
        z=z,
        p_value=float(2 * norm.sf(abs(z))),
    )
