"""How failures are counted: by study, those of one cause once, and beside the old version's.

Requests of one study resemble each other, and so do those of a client that names none. A worker
that died fails what it is asked until it is back; what a client sends may fail with both versions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from archives.gateway.logs import LogRow
from archives.judging.fisher import EXCUSED_FROM_P, more_by_chance
from archives.judging.sequential import MeanTest

BURST_S = 5.0
"""Failures without a handler's code within so long are one: a worker's restart takes about that."""
BURST_MOST = 5.0
"""What one failure can multiply the evidence by: one crash that looks like three is not enough."""


@dataclass
class Unit:
    """What is judged as one: the requests of a study, or of a client that names none."""

    began: float
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, value: float) -> None:
        """Take what a request of it gave, 0 to 1."""
        self.values[what].append(value)

    def share(self, what: str) -> float | None:
        """The mean of what its requests gave; None: none gave any."""
        found = self.values[what]
        return sum(found) / len(found) if found else None


class Units:
    """Requests put together by study while it is `open_s` old, in the log's own time.

    Its later ones are left out: a unit is judged once, as a whole, when its time is over, so that
    neither its size nor its outcome says when. A client that names no study has one unit after the
    other.
    """

    def __init__(self, open_s: float) -> None:
        self.closed = 0
        self._open_s = open_s
        self._open: dict[str, Unit] = {}
        self._over: set[str] = set()

    def take(self, row: LogRow) -> Unit | None:
        """Return the unit of a row; None: it is over."""
        key = row["study"] or f"client {row['client']}"
        if key in self._over:
            return None
        return self._open.setdefault(key, Unit(row["t"]))

    def over(self, t: float) -> Iterator[Unit]:
        """Yield those whose time is over at `t`; a clock that was set back ends them, too."""
        for key, unit in list(self._open.items()):
            if abs(t - unit.began) < self._open_s:
                continue
            del self._open[key]
            if not key.startswith("client "):  # a study's is a hash
                self._over.add(key)
            self.closed += 1
            yield unit


class Bursts:
    """Separates the first failure of a burst from the rest of it."""

    def __init__(self) -> None:
        self._last = -math.inf

    def is_news(self, t: float, *, signed: bool) -> bool:
        """False for one that no handler signs, soon after another one."""
        if signed:
            return True
        if abs(t - self._last) < BURST_S:
            return False
        self._last = t
        return True


class Windows:
    """The share that fails in each `BURST_S`, one value each.

    Where bursts count once, they are the fewer the more requests come: of one failure in five
    seconds among hundreds of answers nothing is seen. Here the answers count once, too.
    """

    def __init__(self, limit: float) -> None:
        self.test = MeanTest(limit, BURST_MOST)
        self._began = math.nan
        self._values: list[float] = []

    def add(self, t: float, failed: float) -> None:
        """Take a request; a window is judged when the next one begins."""
        if self._values and abs(t - self._began) >= BURST_S:
            self.test.add(sum(self._values) / len(self._values))
            self._values = []
        if not self._values:
            self._began = t
        self._values.append(failed)


class Against:
    """Whether the new version fails in a larger share of the studies than the old one does.

    The hash that gives a study to a version knows nothing of what becomes of it: where both fail
    alike, of those that fail the new version has its part of all of them, `new_share`. Where both
    get each study that part is a half; there of each study that they fail unequally the value is
    the new version's part of the two shares. With `odds` its odds of failing may be so many times
    the old one's.
    """

    def __init__(self, new_share: float, odds: float = 1.0) -> None:
        new = odds * new_share
        self.test = MeanTest(new / (new + 1 - new_share))
        self._counts = {"old": [0, 0], "new": [0, 0]}  # studies, those with a failure

    def add(self, new: float | None, old: float | None) -> None:
        """Take the share of a study's requests that either version has failed; None: of none."""
        self._count("old", old)
        self._count("new", new)
        new, old = new or 0.0, old or 0.0
        if new != old:
            self.test.add(new / (new + old))

    def _count(self, arm: str, share: float | None) -> None:
        if share is not None:
            self._counts[arm][0] += 1
            self._counts[arm][1] += share > 0

    @property
    def as_many(self) -> bool:
        """Whether the old version fails, too, and the new one in no larger share of its studies.

        By Fisher's exact test, one-sided: so many failing studies of the new version, or more, are
        what chance gives more often than not where both fail alike.
        """
        (n, failed), (n_old, failed_old) = self._counts["new"], self._counts["old"]
        if not failed_old:
            return False
        return more_by_chance(failed, n, failed_old, n_old) > EXCUSED_FROM_P
