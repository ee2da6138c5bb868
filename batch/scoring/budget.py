"""How many bytes of images may be in memory at once, whatever their size."""

from __future__ import annotations

import itertools
from concurrent.futures import CancelledError
from threading import Condition, Lock


class Budget:
    """Bytes that are granted in the order of tickets.

    In order, since rows are also scored in order: the row that is due next never waits for bytes
    that rows behind it hold. What is parked waits for rows that come next, so these never wait for
    it in turn: an object that does not fit is let through once only parked bytes are there.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._parked = 0
        self._tickets = itertools.count()
        self._turn = 0
        self._closed = False
        self._lock = Lock()
        # One for each that waits: all but the next in turn would be woken for nothing.
        self._waiting: dict[int, Condition] = {}

    def ticket(self) -> int:
        """Take a place in the queue; each has to `acquire` once, if only 0 bytes."""
        return next(self._tickets)

    def acquire(self, ticket: int, size: int) -> None:
        """Wait for the ticket's turn and for memory. Raises CancelledError once closed."""
        with self._lock:
            changed = self._waiting[ticket] = Condition(self._lock)
            while not self._closed and not (self._turn == ticket and self._fits(size)):
                changed.wait()
            del self._waiting[ticket]
            if self._closed:
                raise CancelledError
            self._used += size
            self._turn += 1
            self._wake()

    def add(self, size: int) -> None:
        """Count new bytes (negative: freed bytes) without waiting."""
        with self._lock:
            self._used += size
            self._wake()

    def park(self, size: int) -> None:
        """Mark counted bytes as waiting for rows to come (negative: no longer)."""
        with self._lock:
            self._parked += size
            self._wake()

    def close(self) -> None:
        """End all waiting."""
        with self._lock:
            self._closed = True
            for changed in self._waiting.values():
                changed.notify()

    def _wake(self) -> None:
        """Have the one whose turn it is look again."""
        if (changed := self._waiting.get(self._turn)) is not None:
            changed.notify()

    def _fits(self, size: int) -> bool:
        return not size or self._used <= self._parked or self._used + size <= self._size
