"""How far scores have moved: histograms of 20 bins, and two distances between them.

The reference is the model card's `training.score_reference` (validation part of the training), or
the run before. Only the histograms are compared, so the numbers are those of binned scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]

BINS = 20
"""Of equal width from 0 to 1; a probability of 1 is in the last. So has `calibration`."""

SHIFTED = 0.25
"""PSI from which scores are commonly said to have shifted; from 0.1 they are worth a look."""

PRIOR = 5
"""Scores that are added to both histograms, see `psi`. In simulations of scores in two clusters and
in one broad one, 1 to 10 keep false alarms as rare, and 1 misses more shifts below 100 scores."""

_DRAWS = 1000


def histogram(probabilities: Sequence[float]) -> list[int]:
    """Count the probabilities in each bin."""
    counts = [0] * BINS
    for p in probabilities:
        counts[min(int(p * BINS), BINS - 1)] += 1
    return counts


def psi(expected: Sequence[int], found: Sequence[int]) -> float:
    """Give the population stability index of two histograms: sum of (q - p) ln(q / p), from 0 up.

    To both are added `PRIOR` scores that are spread as the two together, since a bin that is empty
    in one would make it infinite. What is added is the same distribution on both sides: a fixed
    number a bin (half a score, say) is a larger share of few scores than of many, and would be
    taken for a shift wherever bins are empty in both.
    """
    return float(_psi(np.asarray(expected, float), np.asarray(found, float)))


def compared(expected: Sequence[int], found: Sequence[int]) -> dict[str, float]:
    """Give `psi` and `ks` of two histograms that hold scores, and from which PSI to be alarmed.

    `psi_by_chance` is what is expected where nothing has shifted. The usual (bins - 1)(1/n + 1/m)
    (Yurdakul and Naranjo 2020, "Statistical properties of the population stability index") is far
    from it where most bins are empty, as those of scores in two clusters are: it is simulated, by
    drawing both again from the two together, and so is what 1 of 100 such draws exceeds.
    `psi_alarm` is the larger of that and of `SHIFTED` beyond chance.
    """
    both = np.asarray(expected, float) + np.asarray(found, float)
    generator = np.random.default_rng(0)
    drawn = [
        generator.multinomial(sum(counts), both / both.sum(), size=_DRAWS).astype(float)
        for counts in (expected, found)
    ]
    chance = _psi(*drawn)
    mean = float(chance.mean())
    return {
        "psi": psi(expected, found),
        "psi_by_chance": mean,
        "psi_alarm": max(SHIFTED + mean, float(np.quantile(chance, 0.99))),
        "ks": ks(expected, found),
    }


def _psi(expected: Counts, found: Counts) -> Counts:
    """PSI over the last axis."""
    sizes = [counts.sum(axis=-1, keepdims=True) for counts in (expected, found)]
    together = (expected + found) / (sizes[0] + sizes[1])
    p, q = (
        (counts + PRIOR * together) / (size + PRIOR)
        for counts, size in zip((expected, found), sizes, strict=True)
    )
    ratio = np.divide(q, p, out=np.ones_like(p), where=together > 0)
    index: Counts = ((q - p) * np.log(ratio)).sum(axis=-1)
    return index


def ks(expected: Sequence[int], found: Sequence[int]) -> float:
    """Give the largest difference of the two cumulative shares, at the bins' edges: 0 to 1.

    It is the Kolmogorov-Smirnov statistic of binned scores, and at most that of the scores.
    """
    below = [np.cumsum(counts) / sum(counts) for counts in (expected, found)]
    return float(np.abs(below[0] - below[1]).max())
