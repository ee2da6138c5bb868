"""Wilson's interval of a proportion."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(count: int, n: int) -> tuple[float, float] | None:
    """Score interval of 95 % (Wilson 1927, doi 10.1080/01621459.1927.10502953); None for n = 0.

    Assumes independent rows: with several images a patient it is too narrow. By its formula, as
    scipy's `binomtest` computes a p-value first, which takes most of the time of an evaluation.
    """
    if n == 0:
        return None
    z, p = NormalDist().inv_cdf(0.975), count / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = ((middle + it) / (1 + z * z / n) for it in (-half, half))
    # Of none and of all an end is the rate itself: sums of floats miss it by 1e-17.
    return 0.0 if count == 0 else low, 1.0 if count == n else high
