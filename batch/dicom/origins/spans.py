"""The studies since a day, also of a PACS that names a limited number of studies at once.

Many a PACS has such a limit, and some say nothing where they leave studies out (Orthanc's
`LimitFindResults`). So parts of the time are asked for, too: where they name more than the whole,
there is a limit, and what comes up to it is split further, down to hours.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

from sonode.console import UserError

_PARTS = 8
SMALLEST_LIMIT = 10
"""Of a PACS: fewer studies than that are all."""


class Span(NamedTuple):
    """Days, or an hour of a day."""

    first: date
    last: date | None = None
    """None: and later."""
    hour: int | None = None

    @property
    def dates(self) -> str:
        """As a range of DA (PS3.4, C.2.2.2.5)."""
        return f"{self.first:%Y%m%d}-" + (f"{self.last:%Y%m%d}" if self.last else "")

    @property
    def times(self) -> str | None:
        """As a range of TM."""
        return None if self.hour is None else f"{self.hour:02}0000-{self.hour:02}5959.999999"

    def has(self, day: str | None, time: str | None) -> bool:
        """Whether a study of a date and time may be in it: a PACS may not know the filters."""
        last = f"{self.last:%Y%m%d}" if self.last else "9"
        in_hour = self.hour is None or not time or time.startswith(f"{self.hour:02}")
        return in_hour and (not day or f"{self.first:%Y%m%d}" <= day <= last)

    def parts(self, today: date) -> list[Span]:
        """What it consists of; none of an hour."""
        if self.hour is not None:
            return []
        if self.last is None:
            last = max(self.first, today)
            return [*Span(self.first, last).parts(today), Span(last + timedelta(days=1))]
        days = (self.last - self.first).days + 1
        if days == 1:
            return [Span(self.first, self.last, hour) for hour in range(24)]
        starts = sorted({days * part // _PARTS for part in range(_PARTS)})
        return [
            Span(self.first + timedelta(days=start), self.first + timedelta(days=end - 1))
            for start, end in zip(starts, [*starts[1:], days], strict=True)
        ]


Found = dict[str, int | None]
"""Studies by their UID, with what `Origin.studies` tells of each."""


def studies(since: date, ask: Callable[[Span], Found], today: date) -> Found:
    """All studies since a day.

    Raises UserError where there is a limit and an hour, or a day without times, has more.
    """
    whole = ask(Span(since))
    found = dict(whole)
    full = [(Span(since), whole)] if len(whole) >= SMALLEST_LIMIT else []
    hours: list[Span] = []
    timeless = False
    while full:
        span, named = full.pop()
        in_parts: Found = {}
        for part in span.parts(today):
            its = ask(part)
            in_parts |= its
            if part.hour is None and len(its) >= len(whole):
                full.append((part, its))
            elif len(its) == len(whole):
                hours.append(part)
        found |= in_parts
        # Of studies without a time, which are in no hour, not all may have been named.
        timeless = timeless or not named.keys() <= in_parts.keys()
    if (hours or timeless) and len(found) > len(whole):
        raise too_many(len(whole))
    return found


def too_many(named: int) -> UserError:
    """What is to be said of a PACS that names fewer studies than there are in an hour."""
    return UserError(
        f"the PACS names {named} studies at once and no more, and there are more in an hour; raise "
        "its limit of answers (Orthanc: LimitFindResults)"
    )
