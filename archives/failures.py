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
    """Whether the new version fails more often than the old one, by however little.

    Each first try of the new version is drawn together with those of the old one that come before
    its next: if some of them fail, and both versions fail alike, it is among those with the
    probability that their share is. `bursts`: failures that nobody signs count once.
    """

    def __init__(self, *, bursts: bool = False) -> None:
        self.test = MeanTest(0.5)
        self.old_fails = False
        self._bursts = Bursts() if bursts else None
        self._new: Row | None = None
        self._others = self._failures = 0  # of the old version since then
        self._failure: Row | None = None  # the first of them

    def add_new(self, row: Row) -> None:
        """Take a row of the new version; a second try comes of a failure, and would hide it."""
        if self._new is not None and self._new["id"] == row["id"]:
            return
        if self._new is not None and self._others:
            self._judge(self._new)
        self._new = row

    def add_old(self, row: Row) -> None:
        """Take a row of the old version."""
        failed = _failed(row)
        self.old_fails |= failed
        if self._new is not None:
            self._others += 1
            self._failures += failed
            if failed and self._failure is None:
                self._failure = row

    def _judge(self, new: Row) -> None:
        share = (self._failures + _failed(new)) / (1 + self._others)
        first = new if _failed(new) else self._failure
        self._others, self._failures, self._failure = 0, 0, None
        if first is None or share == 1:
            return
        if self._bursts is None or self._bursts.is_news("either version", first):
            self.test.add(float(first is new), share)

    @property
    def no_more(self) -> bool:
        """The old version fails, too, and nothing says that the new one does so more often."""
        return self.old_fails and (not self.test.n or self.test.log_evidence <= 0)


def _failed(row: Row) -> bool:
    return int(row["status"]) >= 500
