"""What the person at the terminal sees: their mistakes in one line, progress, tables.

Light on purpose (no torch, rich only when used): the command line imports it at start.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """A mistake that the user can mend: names the thing, its value and the remedy.

    The command line prints it without a traceback and exits with code 2. `details` are further
    lines for faults that are best seen together (all bad rows of a cohort, say).
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = list(details)


def say(text: str = "") -> None:
    """Print one line of account to standard output at once."""
    print(text, flush=True)


def progress(items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
    """Yield `items`; show a bar on a terminal, and a plain line every 10 s elsewhere."""
    if sys.stderr.isatty():
        from rich.progress import track

        yield from track(items, description=what, total=total, transient=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
        yield item


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; its width follows the terminal, 100 columns where there is none."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 100, markup=False, emoji=False)
    drawn = Table(*columns, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)
