"""The mean of a measure over folds, whose networks share most of their training patients."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats


class FoldMean(NamedTuple):
    """Mean over the folds, standard deviation, and 95 % interval."""

    value: float
    sd: float
    low: float | None
    """None, as `high`, where all folds have one value: that shows nothing of how it varies."""
    high: float | None


def mean_of_folds(values: Sequence[float], tested: Sequence[int]) -> FoldMean:
    """The corrected interval of Nadeau & Bengio for a share-like measure (between 0 and 1).

    (2003, https://doi.org/10.1023/A:1024068626366.) Networks of K folds share training patients, so
    their figures are not independent, and their variance over K is too small a variance of the
    mean; it is the variance times (1/K + tested/trained), here the mean of that quotient over the
    folds, with Student's t of K - 1 degrees of freedom. What lies beyond 0 and 1 is cut off.

    `tested`: how many patients each fold has.
    """
    count, everyone = len(values), sum(tested)
    mean, sd = statistics.mean(values), statistics.stdev(values)
    if sd == 0:
        return FoldMean(mean, sd, None, None)
    overlap = statistics.fmean(own / (everyone - own) for own in tested)
    half = float(stats.t.ppf(0.975, count - 1)) * math.sqrt(1 / count + overlap) * sd
    return FoldMean(mean, sd, max(0.0, mean - half), min(1.0, mean + half))
