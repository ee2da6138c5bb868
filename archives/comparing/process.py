"""One archive in a process of its own, for as long as a comparison, or a reader, needs it.

Two archives cannot share a process: each brings its own `handlers` and `model_def`. The functions
that begin with `_in_` run there.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from batch.storage.errors import StorageError
from sonode import console
from sonode.console import UserError

if TYPE_CHECKING:
    from archives.packing.loader import Description, LoadedArchive
    from batch.manifest.read import Request

T = TypeVar("T")


class Side:
    """An archive that is open in its process; its methods wait for what they ask."""

    def __init__(self, name: str, uri: str, pool: ProcessPoolExecutor) -> None:
        self._name, self._uri, self._pool = name, uri, pool

    def open(self, settings: Mapping[str, object], temp: Path) -> Description:
        """Verify and load the archive, unpacked below `temp`. Raises UserError."""
        return self.ask(_in_open, self._uri, dict(settings), str(temp))

    def score(self, manifest: str, out: Path, explain: str | None = None) -> None:
        """Score a manifest as `sonode score` does. Raises UserError."""
        self.ask(_in_score, manifest, str(out), explain)

    def seconds(self, requests: Sequence[Request], *, together: bool = False) -> list[float]:
        """Score images one by one, or all `together`; the seconds of each call.

        From the encoded bytes to the scores: fetching is not in it, nor is HTTP.
        """
        return self.ask(_in_seconds, list(requests), together)

    def close(self) -> None:
        """Give up what the archive holds."""
        self.ask(_in_close)

    def ask(self, work: Callable[..., T], *arguments: object) -> T:
        """Give what a function returns in the process, where `opened` has the archive.

        Raises UserError, also where the process has ended.
        """
        try:
            return self._pool.submit(work, *arguments).result()
        except (UserError, StorageError) as error:
            raise UserError(f"{self._name}: {error}", getattr(error, "details", ())) from None
        except BrokenProcessPool:
            raise UserError(
                f"{self._name}: its process was killed from outside; check the machine's memory"
            ) from None


@contextmanager
def process_of(name: str, uri: str) -> Iterator[Side]:
    """Give the archive a process until the block ends; nothing of it goes on afterwards.

    `name`: what a refusal calls it.
    """
    before = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _in_start) as pool:
        side = Side(name, uri, pool)
        pool.submit(int).result()  # a process is started with its first task
        (child,) = set(multiprocessing.active_children()) - before
        try:
            yield side
            side.close()
        except BaseException:
            child.terminate()  # else leaving the pool would wait for what it is doing
            raise


def _in_start() -> None:
    """End with the process that asks, also where that is killed: nobody would ask again."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


_held = ExitStack()
_opened: list[LoadedArchive] = []


def opened() -> LoadedArchive:
    """Give the archive that is open in this process."""
    (archive,) = _opened
    return archive


def _in_open(uri: str, settings: dict[str, object], temp: str) -> Description:
    from batch.scoring.archive_file import open_archive

    tempfile.tempdir = temp  # goes with the comparison, whatever ends this process
    archive = _held.enter_context(open_archive(uri, settings))
    _opened.append(archive)
    return archive.described()


def _in_close() -> None:
    _opened.clear()
    _held.close()


def _in_score(manifest: str, out: str, explain: str | None) -> None:
    from batch import run

    run.score(manifest, out, opened(), explain=explain, progress=console.progress)


def _in_seconds(requests: list[Request], together: bool) -> list[float]:
    from batch.storage import objects

    archive = opened()
    rows = [{"image": objects.read(it.image_uri).data, **it.fields} for it in requests]
    archive.score([dict(rows[0])])  # not counted: wakes what slept while the other was at work
    seconds = []
    for call in [rows] if together else [[row] for row in rows]:
        start = time.perf_counter()
        archive.score([dict(row) for row in call])
        seconds.append(time.perf_counter() - start)
    return seconds
