"""How failures are counted: those of one cause once, and beside the old version's.

A worker that died fails what it is asked until it is back; what a client sends may fail with both.
"""

from __future__ import annotations

import math

from archives.gateway_logs import OWN_CODES, Row
from archives.sequential import MeanTest

BURST_S = 5.0
"""Failures that nobody signs, on one node within so long, are one: a worker that starts anew takes
about that."""
BURST_MOST = 5.0
"""What one failure can multiply the evidence by: one crash that looks like three is not enough."""


class Bursts:
    """Tells the first failure of a burst from the rest of it."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def is_news(self, where: str, failure: Row) -> bool:
        """False for one that nobody signs, soon after another one there."""
        if failure["code"] not in OWN_CODES:
            return True
        if failure["t"] - self._last.get(where, -math.inf) < BURST_S:
            return False
        self._last[where] = failure["t"]
        return True


class Windows:
    """The share of attempts that fail in each `BURST_S` on each node, one value each.

    Where bursts count once, they are the fewer the more requests come: of one failure in five
    seconds among hundreds of answers nothing is seen. Here the answers count once, too.
    """

    def __init__(self, limit: float) -> None:
        self.test = MeanTest(limit, BURST_MOST)
        self._open: dict[str, tuple[float, int, int]] = {}  # beginning, attempts, failures

    def add(self, row: Row) -> None:
        """Take an attempt; a window is judged when the next one begins."""
        began, attempts, failures = self._open.get(row["node"], (row["t"], 0, 0))
        if row["t"] - began >= BURST_S:
            self.test.add(failures / attempts)
            began, attempts, failures = row["t"], 0, 0
        self._open[row["node"]] = began, attempts + 1, failures + (row["status"] >= 500)


class Pairing:
    """Sets each row of the old version beside the new version's latest; each is used once.

    The second try of a request is passed over: it comes of a failure, and would hide it.
    """

    def __init__(self) -> None:
        self._new: Row | None = None

    def add_new(self, row: Row) -> None:
        """Take a row of the new version."""
        if self._new is None or self._new["id"] != row["id"]:
            self._new = row

    def take(self) -> Row | None:
        """Return what a row of the old version is compared with; None: nothing new came."""
        found, self._new = self._new, None
        return found


class Against:
    """Whether the new version fails in more pairs than the old one, by however little."""

    def __init__(self) -> None:
        self.test = MeanTest(0.5)  # the new one's share of the pairs in which one of the two fails
        self.old_fails = False

    def add(self, new: bool, old: bool, *, is_news: bool = True) -> None:
        """Take a pair: who failed; one that is no news may be due to what has been counted."""
        self.old_fails |= old
        if new != old and is_news:
            self.test.add(float(new))

    @property
    def no_more(self) -> bool:
        """The old version fails, too, and nothing says that the new one does so more often."""
        return self.old_fails and (not self.test.n or self.test.log_evidence <= 0)
