"""Threads that decode, each row with a time limit.

A thread cannot be killed. One that is over its limit is given up: its row fails, another thread
takes its place, and it ends itself if it ever comes back. Until then it keeps a core busy or a row
in memory, so a run with too many of them at once ends. (A decoder that hangs inside C without
giving up the interpreter's lock stops the whole process; none of those in use does.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from queue import SimpleQueue
from typing import Generic, TypeVar

from sonode.console import UserError

T = TypeVar("T")


class TimeLimit(Exception):  # noqa: N818 - reads as what it is
    """A task was given up."""


class TooManyHang(UserError):  # noqa: N818 - reads as what it is
    """So many threads are given up and still at work that the run ends."""


class Task(Generic[T]):
    """Work that was handed to the pool.

    `settled` is called once, by whichever comes first: its end (with the value, None for an error)
    or its being given up (with None).
    """

    def __init__(
        self, pool: Decoders, work: Callable[[], T], settled: Callable[[T | None], None]
    ) -> None:
        self._pool = pool
        self._work: Callable[[], T] | None = work
        self._settled = settled
        self._done = threading.Event()
        self._value: T | None = None
        self._error: Exception | None = None
        self.started: float | None = None
        self.watched_s = 0.0
        """How long it has been at work, as far as the pool has looked."""
        self.milliseconds = 0.0

    def run(self) -> None:
        """Do the work, unless it has been given up."""
        assert self._work is not None
        self.started = time.perf_counter()
        try:
            value: T | None = self._work()
            error: Exception | None = None
        except Exception as raised:
            value, error = None, raised
        self._work = None  # and with it the encoded bytes
        with self._pool.lock:
            if not self._done.is_set():
                self._finish(value, error)

    def give_up(self) -> bool:
        """End it for those who wait, unless it has ended; with the pool's lock held."""
        if self._done.is_set():
            return False
        self._finish(None, TimeLimit())
        return True

    def wait(self) -> bool:
        """Wait a while for it; whether it is there. Raises TooManyHang and CancelledError."""
        if self._done.wait(self._pool.look_every_s):
            return True
        self._pool.look()
        return False

    def result(self) -> T:
        """Wait for it; ask once. Raises TimeLimit, TooManyHang, CancelledError, or its own."""
        while not self.wait():
            pass
        if self._error is not None:
            raise self._error
        value, self._value = self._value, None  # whose bytes are the caller's from now on
        return value  # type: ignore[return-value]

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return isinstance(self._error, TimeLimit)

    def _finish(self, value: T | None, error: Exception | None) -> None:
        assert self.started is not None
        self.milliseconds = 1000 * (time.perf_counter() - self.started)
        self._value, self._error = value, error
        self._settled(value)
        self._done.set()


class Decoders:
    """`threads` daemon threads (one that hangs must not keep the process from ending)."""

    def __init__(
        self, threads: int, *, limit_s: float, max_given_up: int, stop: threading.Event
    ) -> None:
        self.lock = threading.Lock()
        self.look_every_s = min(1.0, limit_s / 4)
        self._looked = time.perf_counter()
        self._hanging = 0  # given up and not back yet
        self._stop = stop
        self._limit_s = limit_s
        self._max_given_up = max_given_up
        self._queue: SimpleQueue[Task[object] | None] = SimpleQueue()
        self._running: set[Task[object]] = set()
        self._threads = threads
        for _ in range(threads):
            self._start_thread()

    def submit(
        self, work: Callable[[], T], settled: Callable[[T | None], None] = lambda value: None
    ) -> Task[T]:
        """Have `work` done by one of the threads, in order; for `settled` see Task."""
        task = Task(self, work, settled)
        self._queue.put(task)  # type: ignore[arg-type]
        return task

    def look(self) -> None:
        """Give up what is over the limit. Raises TooManyHang; CancelledError after the stop."""
        with self.lock:
            now = time.perf_counter()
            # A process that was stopped (SIGSTOP, a suspended machine) has not decoded meanwhile.
            passed = min(now - self._looked, 2 * self.look_every_s)
            self._looked = now
            for task in list(self._running):
                task.watched_s += min(passed, now - (task.started or now))
                if task.watched_s > self._limit_s and task.give_up():
                    self._running.discard(task)
                    self._hanging += 1
                    self._start_thread()
            hanging = self._hanging
        if self._stop.is_set():
            raise CancelledError
        if hanging > self._max_given_up:
            raise TooManyHang(
                f"{hanging} images were not decoded within {self._limit_s:g} s (--row-timeout) "
                "and still occupy their threads. Their rows have preprocess_timeout; re-run with "
                "--keep-failed to resume without them"
            )

    def close(self) -> None:
        """Let the threads end once nothing waits."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _start_thread(self) -> None:
        threading.Thread(target=self._serve, name="decode", daemon=True).start()

    def _serve(self) -> None:
        while (task := self._queue.get()) is not None:
            with self.lock:
                self._running.add(task)
            task.run()
            with self.lock:
                self._running.discard(task)
                if task.given_up:
                    self._hanging -= 1
                    return  # another thread has taken this one's place
