"""Whether the new version is slower: pairs of attempts of both versions, at most one a second."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import numpy as np

from archives.gateway.logs import LogRow
from archives.judging.sequential import MeanTest

SLOW = 0.05
"""Share of the old version's attempts that are slow, by the meaning of p95."""
LATENCIES = 200
"""Latest attempts of the old version from which its p95 is taken, and at least a tenth of them."""
SLOW_MOST = 1.5
"""What a slow second can multiply the evidence by: a restarted worker takes several."""
PATIENCE_S = 1.0
"""What a client gives up earlier, or within twice the old version's p95, is its own matter."""


class Times:
    """Counts the pairs in which one of the two is slow.

    The old version is slow beyond its own p95, the new one beyond `factor` times that. Its odds of
    being the slow one may be `odds`.
    """

    def __init__(self, odds: float, factor: float) -> None:
        self.test = MeanTest(odds / (1 + odds), SLOW_MOST)
        self._factor = factor
        self._old_ms: deque[float] = deque(maxlen=LATENCIES)
        self._new: LogRow | None = None
        self._last = -math.inf

    @property
    def patience_ms(self) -> float:
        """What a client has to wait for before its giving up counts as a failure."""
        return max(1000 * PATIENCE_S, 2 * (self._p95() or 0.0))

    def add_old(self, ms: float) -> None:
        """Take the time of an answer of the old version."""
        self._old_ms.append(ms)

    def pair(self, arm: Literal["old", "new"], row: LogRow) -> None:
        """Take an attempt of a canary: the new version's latest goes with the old one's next."""
        if arm == "new":
            self._new = row
        elif self._new:
            self.compare(self._new, row)
            self._new = None

    def compare(self, new: LogRow, old: LogRow) -> None:
        """Take a pair, unless it comes within a second of the one before."""
        p95 = self._p95()
        if p95 is None or abs(new["t"] - self._last) < 1:
            return
        self._last = new["t"]
        slow = new["ms"] > self._factor * p95
        if slow != (old["ms"] > p95):
            self.test.add(float(slow))

    def _p95(self) -> float | None:
        if len(self._old_ms) < LATENCIES // 10:
            return None
        return float(np.percentile(list(self._old_ms), 100 * (1 - SLOW)))
