"""What the person at the terminal sees: their mistakes in one line, progress, tables.

Light on purpose (no torch, rich only when used): the command line imports it at start.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TypeVar

T = TypeVar("T")

TRY_AGAIN = 75
"""Exit code of a command that is to be run again, since somebody does not answer (EX_TEMPFAIL)."""


SHOWN = 20
"""Lines of a list of faults that are printed."""


class UserError(Exception):
    """A mistake that the user can fix: names the field, its value and the remedy.

    The command line prints it without a traceback and exits with code 2. `details` are further
    lines for faults that are best seen together (all bad rows of a cohort, say).
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = list(details)


def say(text: str = "") -> None:
    """Print one line of account to standard output at once."""
    print(text, flush=True)


def counted(count: int, one: str, several: str = "") -> str:
    """How many there are of something, in words: `1 row`, `1,309 rows`."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def first_of(lines: Sequence[str], count: int, most: int = SHOWN) -> list[str]:
    """The first of the lines, and how many more there are of `count` in all."""
    return [*lines[:most], *([f"and {count - most} more"] if count > most else [])]


@dataclass
class Ending:
    """How this command ends at a signal."""

    awaited: str = "what is under way"
    """What the end waits for: whoever presses Ctrl-C again reads it."""
    at_once: bool = False
    """A second Ctrl-C has come, not in the same moment: nothing is waited for any more."""


ENDING = Ending()


PARENT = "SONODE_PARENT"
"""Variable that names the process which a command was started by, and ends with."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
CLEANS_UP_S = 30.0  # what is stopped since its time is over has so long to remove its files


def run_sonode(
    arguments: Sequence[str], log: IO[str] | None = None, timeout_s: float | None = None
) -> int:
    """Run a command of sonode in a process of its own and return its exit code.

    Its output goes to `log`, or where this process's goes. A Ctrl-C reaches it once, from here, and
    it has time to clean up. It ends with this process, however this one ends. Raises
    subprocess.TimeoutExpired where it takes longer than `timeout_s` (None: without a limit); it is
    ended then, with all that it has started.
    """
    # -P: a user's folder that is named like a package of sonode must not replace it.
    command = [sys.executable, "-P", "-m", "sonode", *arguments]
    environment = {**os.environ, PARENT: str(os.getpid())}
    with subprocess.Popen(
        command, stdout=log, stderr=log, start_new_session=True, env=environment
    ) as child:
        try:
            return child.wait(timeout_s)
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            child.wait()
            raise
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(CLEANS_UP_S)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise


def end_with_parent() -> None:
    """In a process that PARENT was given to: get SIGTERM when its parent ends, even by SIGKILL.

    Else a training whose `ablate` was killed would go on, and the next one would meet it.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):  # it ended before it could be watched
        signal.raise_signal(signal.SIGTERM)


def progress(items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
    """Yield `items`; show one line that updates on a terminal, and a plain line a tenth elsewhere.

    Elsewhere at least 10 s lie between two lines, so that what is done at once says nothing.
    """
    if sys.stderr.isatty():
        from rich.progress import track

        yield from track(items, description=what, total=total, transient=True)
        return
    shown, last = 0, time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if 10 * done // total > shown and time.monotonic() - last >= 10:
            shown, last = 10 * done // total, time.monotonic()
            print(
                f"{what}: {done} of {total} ({100 * done // total} %)", file=sys.stderr, flush=True
            )


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, no word cut off; its width follows the terminal, else 140 columns at most."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(width=None if sys.stdout.isatty() else 140, markup=False, emoji=False)
    whole = [Column(name, overflow="fold") for name in columns]
    drawn = Table(*whole, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)
