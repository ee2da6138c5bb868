"""How far scores have moved: histograms of 20 bins, and two distances between them.

The reference is the model card's `training.score_reference` (validation part of the training), or
the run before. Only the histograms are compared, so the numbers are those of binned scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

BINS = 20
"""Of equal width from 0 to 1; a probability of 1 is in the last. So has `train.calibration`."""

SHIFTED = 0.25
"""PSI from which scores are commonly said to have shifted; from 0.1 they are worth a look."""


def histogram(probabilities: Sequence[float]) -> list[int]:
    """Count the probabilities in each bin."""
    counts = [0] * BINS
    for p in probabilities:
        counts[min(int(p * BINS), BINS - 1)] += 1
    return counts


def psi(expected: Sequence[int], found: Sequence[int]) -> float:
    """Give the population stability index of two histograms: sum of (q - p) ln(q / p), from 0 up.

    Half a score is added to every bin, since an empty one would make it infinite. Few scores give
    large values by chance alone: about (bins - 1) (1/n + 1/m) is expected without any shift
    (Yurdakul and Naranjo 2020, "Statistical properties of the population stability index").
    """
    shares = []
    for counts in (expected, found):
        total = sum(counts) + len(counts) / 2
        shares.append([(count + 0.5) / total for count in counts])
    expected_shares, found_shares = shares
    return math.fsum(
        (q - p) * math.log(q / p) for p, q in zip(expected_shares, found_shares, strict=True)
    )


def psi_by_chance(expected: Sequence[int], found: Sequence[int]) -> float:
    """Give the PSI that is expected where nothing has shifted; see `psi`."""
    return (len(expected) - 1) * (1 / sum(expected) + 1 / sum(found))


def ks(expected: Sequence[int], found: Sequence[int]) -> float:
    """Give the largest difference of the two cumulative shares, at the bins' edges: 0 to 1.

    It is the Kolmogorov-Smirnov statistic of binned scores, and at most that of the scores.
    """
    largest = 0.0
    below = [0, 0]
    for p, q in zip(expected, found, strict=True):
        below = [below[0] + p, below[1] + q]
        largest = max(largest, abs(below[0] / sum(expected) - below[1] / sum(found)))
    return largest
