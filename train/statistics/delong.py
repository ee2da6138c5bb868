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

from train.statistics.binary import Bools, Floats

_Z = float(norm.ppf(0.975))  # of an interval of 95 %


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """An AUC with its standard error and interval."""

    auc: float
    se: float
    low: float | None
    """Interval on the logit scale (Pepe 2003), which stays within 0..1; None at an AUC of 0 or 1,
    where the standard error is 0 and says nothing."""
    high: float | None


def _placements(truth_N: Bools, score_N: Floats) -> tuple[Floats, Floats]:
    """Twice the negatives below each positive, and twice the positives above each negative.

    Ties count half, so these are whole numbers, and a variance of 0 is exactly 0: as shares it
    would be one of rounding, and a test of it would find what is not there.
    """
    positive, negative = score_N[truth_N], score_N[~truth_N]
    rank = rankdata(np.concatenate([positive, negative]))
    above = 2 * (rank[: len(positive)] - rankdata(positive))
    below = 2 * (len(positive) - rank[len(positive) :] + rankdata(negative))
    return above, below


def _mean_and_se(above: Floats, below: Floats) -> tuple[float, float]:
    """The area and its standard error, from placements or from differences of them."""
    positives, negatives = len(above), len(below)
    area = float(above.sum()) / (2 * positives * negatives)
    variance = (
        above.var(ddof=1) / negatives**2 / positives + below.var(ddof=1) / positives**2 / negatives
    )
    return area, math.sqrt(variance) / 2


def ranked_alike(truth_N: Bools, first_N: Floats, second_N: Floats) -> bool:
    """Whether two scores order every positive and every negative in the same way."""
    one, two = _placements(truth_N, first_N), _placements(truth_N, second_N)
    return all(np.array_equal(*pair) for pair in zip(one, two, strict=True))


def _enough(truth_N: Bools) -> bool:
    return bool(truth_N.sum() >= 2 and (~truth_N).sum() >= 2)


def delong(truth_N: Bools, score_N: Floats) -> DeLong | None:
    """The AUC with DeLong's standard error; None with fewer than two rows of either class."""
    if not _enough(truth_N):
        return None
    auc, se = _mean_and_se(*_placements(truth_N, score_N))
    if se == 0 or not 0 < auc < 1:
        return DeLong(auc=auc, se=se, low=None, high=None)
    half = _Z * se / (auc * (1 - auc))
    low, high = expit(logit(auc) - half), expit(logit(auc) + half)
    return DeLong(auc=auc, se=se, low=float(low), high=float(high))


def delong_p(truth_N: Bools, first_N: Floats, second_N: Floats) -> float | None:
    """The two-sided p-value of two scores of the same rows having one AUC.

    None with fewer than two rows of either class, or where the difference has no variance (the
    two scores rank alike).
    """
    if not _enough(truth_N):
        return None
    one, two = _placements(truth_N, first_N), _placements(truth_N, second_N)
    difference, se = _mean_and_se(one[0] - two[0], one[1] - two[1])
    return None if se == 0 else float(2 * norm.sf(abs(difference / se)))
