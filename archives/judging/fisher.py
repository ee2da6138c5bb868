"""Fisher's exact test: whether one version fails more often than the other by more than chance.

Fisher 1922, https://doi.org/10.2307/2340521.
"""

from __future__ import annotations

EXCUSED_FROM_P = 0.5
"""A version is not blamed for failures where chance alone gives as many with a larger probability.

No level of significance: it decides whom the failures of both versions speak against.
"""


def more_by_chance(failed: int, n: int, failed_old: int, n_old: int) -> float:
    """The one-sided p-value: of `failed` or more of `n`, both margins of the table as they are."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(failed - 1, n + n_old, failed + failed_old, n))
