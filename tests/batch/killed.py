"""Runs that are killed, as processes to start: forked from one that has imported all they need."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from batch.storage import objects
from tests.batch.conftest import FakeArchive
from tests.batch.test_run import run

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def started(work: Callable[..., None], *given: object) -> BaseProcess:
    """A process that does `work`, in this one's environment of this moment."""
    process = _context.Process(target=_in, args=(dict(os.environ), work, *given), daemon=True)
    process.start()
    return process


def _in(environment: dict[str, str], work: Callable[..., None], *given: object) -> None:
    os.environ.clear()
    os.environ.update(environment)
    work(*given)


class Slow(FakeArchive):
    """Takes long enough to be killed."""

    def score_prepared(self, prepared: Any) -> Any:
        time.sleep(0.01)
        return super().score_prepared(prepared)


def slowly(manifest: str, out: str) -> None:
    """A run of a third of a second or more."""
    run(manifest, out, Slow(), explain="gradcam")


def until(boundary: int, manifest: str, out: str, late: str) -> None:
    """A run, an image that comes late, and the run that mends what it lacked; then the end.

    Unless it dies before: at the start or the end, counted together, of a fetch or another reading,
    of a decoding, a call of the network, or a writing of any kind.
    """
    boundaries = itertools.count()

    def cross() -> None:
        if next(boundaries) == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(stage: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            cross()
            found = stage(*given, **named)
            cross()
            return found

        return wrapped

    for name in ("read", "create", "replace", "write"):
        setattr(objects, name, dying(getattr(objects, name)))
    for name in ("preprocess", "score_prepared"):
        setattr(FakeArchive, name, dying(getattr(FakeArchive, name)))
    for _ in range(2):
        run(manifest, out, FakeArchive(), explain="gradcam", shard_rows=2)
        objects.write(late, b"p=0.2")
