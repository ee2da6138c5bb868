"""Tests that stay valid however often one looks, and stop at the first look that is enough.

A rollout is watched all the time. A fixed-sample test that is repeated at each look is wrong far
more often than its level says; these are not. Each is simulated under its null hypothesis, with a
look after every observation, in `tests/archives/judging/test_sequential.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

BETS = 24
"""Alternatives that a `MeanTest` bets on at once."""

FIRST_LOOK = 20
"""Observations before the first look at a distribution."""

LOOK_GROWTH = 1.2
"""Each look at a distribution has that many times the observations of the one before."""


class MeanTest:
    """Evidence that values in [0, 1] have a mean above `limit`, 0 < limit < 1.

    The wealth of a player who starts with 1 and bets on each value before it is seen, at odds that
    are fair or worse to the player as long as the mean is at most `limit`, whatever came before:
    the product of 1 + b (x - limit). By Ville's inequality it ever reaches 1/alpha with probability
    alpha at most. Bets b are a fixed mixture: for values 0 and 1 each is the likelihood ratio of a
    rate above `limit` to it (Robbins 1970, doi 10.1214/aoms/1177696786; Waudby-Smith and Ramdas
    2024, doi 10.1093/jrsssb/qkad009).

    `most` bounds what one value can multiply the wealth by, where a short disturbance gives many
    bad values in a row: evidence E then takes at least log E / log `most` of them.
    """

    def __init__(self, limit: float, most: float = math.inf) -> None:
        self.limit = limit
        self.n = 0
        self.total = 0.0
        self._most = most
        self._bets = self._bets_at(limit)
        self._log_wealth = np.zeros(BETS)

    def add(self, value: float, limit: float | None = None) -> None:
        """Take the next value, in the order of time; `limit` where it has one of its own.

        That must be known before the value is, as odds in a lottery whose tickets change in number.
        """
        self.n += 1
        self.total += value
        bets = self._bets if limit is None else self._bets_at(limit)
        self._log_wealth += np.log1p(bets * (value - (self.limit if limit is None else limit)))

    def _bets_at(self, limit: float) -> npt.NDArray[np.float64]:
        odds = limit / (1 - limit) * np.geomspace(1.1, 1000.0, BETS)
        rates = odds / (1 + odds)
        bets = (rates - limit) / (limit * (1 - limit))
        return np.minimum(bets, (self._most - 1) / (1 - limit))

    @property
    def mean(self) -> float | None:
        """Of the values so far; None without any."""
        return self.total / self.n if self.n else None

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the wealth; log(1/alpha) and more refutes at level alpha."""
        return float(np.logaddexp.reduce(self._log_wealth) - math.log(BETS))


def looks(n: int) -> int:
    """How many looks a sample that has grown to n has had, counting from `FIRST_LOOK`."""
    return sum(1 for _ in _look_sizes(n))


def _look_sizes(n: int) -> Iterable[int]:
    size = FIRST_LOOK
    while size <= n:
        yield size
        size = math.ceil(size * LOOK_GROWTH)


def band(n: int, alpha: float) -> tuple[int, float]:
    """The half width of a band around an empirical distribution, good at all looks together.

    Returns the size m <= n of the last look (the first m observations count; 0: none yet), and the
    width w: with probability 1 - alpha, at no look is the distribution of the first m further than
    w from the true one, anywhere. The k-th look has level alpha / (k (k + 1)), whose sum is alpha,
    in the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990, doi
    10.1214/aop/1176990746). Howard and Ramdas (2022, doi 10.3150/21-BEJ1388) have a band for a look
    at every n, which is no narrower at the sizes that a rollout sees.
    """
    *_, size = [0, *_look_sizes(n)]
    if not size:
        return 0, 1.0
    k = looks(size)
    level = alpha / (k * (k + 1))
    return size, min(1.0, math.sqrt(math.log(2 / level) / (2 * size)))


def ks(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest distance of two empirical distributions, 0 to 1 (Kolmogorov-Smirnov)."""
    a, b = np.sort(first), np.sort(second)
    at = np.concatenate([a, b])
    below = [np.searchsorted(x, at, side="right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def ks_by_chance(n: int, m: int) -> float:
    """What `ks` exceeds in 5 % of samples from one distribution, seen once (Smirnov 1948)."""
    return 1.358 * math.sqrt(1 / n + 1 / m)


def least_distance(first: Sequence[float], second: Sequence[float], alpha: float) -> float | None:
    """A bound below the distance of two distributions, from samples in the order of time.

    With probability 1 - alpha it is below the true one at all looks together; it can be below 0,
    and is None before the first look at both.
    """
    sizes, widths = zip(*(band(len(sample), alpha / 2) for sample in (first, second)), strict=True)
    if not all(sizes):
        return None
    return ks(first[: sizes[0]], second[: sizes[1]]) - float(sum(widths))
