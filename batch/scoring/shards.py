"""A shard: a slice of the manifest that is fetched, scored and written by one function.

It may run in any order, twice, or elsewhere: `score_shard` needs the shard and the job, gives a
receipt, and what the results hold afterwards is the same (see `batch.scoring.parts`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from batch import layout
from batch.manifest.read import Request, digest, requests
from batch.results import schema as results
from batch.results.previous_results import PreviousResults
from batch.scoring import parts
from batch.scoring.fetching import Limits
from batch.scoring.job import Job
from batch.scoring.pipeline import Pipeline
from batch.storage import objects
from sonode.console import UserError


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A slice of the manifest."""

    index: int
    table: pa.Table

    def part(self, job: Job) -> str:
        """Name the file of this shard's results, below the folder of the results."""
        key = job.key(digest(self.table), job.folder)
        return layout.part(job.partition, self.index, key)


class Receipt(NamedTuple):
    """What one call did for a shard; the rows themselves are in its part."""

    part: str
    scored: int
    """Rows that went through the archive, or failed to get there, in this call."""
    carried: int
    """Rows that were reused from previous results."""


def score_shard(shard: Shard, job: Job, pipeline: Pipeline) -> Receipt:
    """Score what is missing in a shard's part, or has failed there, and write the part.

    A part is also written before its shard's end: each `Limits.unwritten_seconds`, and where the
    run ends. Rows whose turn had not come are `not_reached` there, which any later run does.

    Raises UserError where the run is over, and CancelledError where it was stopped.
    """
    with pipeline.shard():
        return _scored(shard, job, pipeline)


def _scored(shard: Shard, job: Job, pipeline: Pipeline) -> Receipt:
    name = shard.part(job)
    uri = objects.join(job.out, name)
    with job.writing():
        held = parts.load(uri, shard.table.num_rows, job.columns)
    todo = list(range(shard.table.num_rows))
    if held is not None:
        todo = [
            row
            for row in todo
            if held.rows[row]["status"] == results.FAILED
            and (job.retry_failed or held.rows[row]["code"] == results.NOT_REACHED)
        ]
        for row in set(range(shard.table.num_rows)) - set(todo):
            job.on_row(held.rows[row]["code"])
        if not todo and (held.rows or shard.table.num_rows == 0):
            return Receipt(name, 0, 0)
    part = _Part(uri, shard, job, pipeline.limits.unwritten_seconds, held)
    try:
        scored, carried = _filled(part, shard, job, pipeline, todo)
    except (UserError, CancelledError):
        if part.unwritten:
            with suppress(UserError):  # the error that ended the run is the one to raise
                part.write()
        raise
    part.write()
    return Receipt(name, scored, carried)


class _Part:
    """A shard's rows as they are found, and the part that they are written to."""

    def __init__(
        self, uri: str, shard: Shard, job: Job, write_each_s: float, held: parts.Part | None
    ) -> None:
        self._uri, self._shard, self._job, self._held = uri, shard, job, held
        self._write_each_s = write_each_s
        self._since: float | None = None
        left = results.failed(results.NOT_REACHED, "fetch", "the run ended before its turn")
        self.rows = list(held.rows) if held else [left] * shard.table.num_rows

    def found(self, row: int, result: results.Row) -> None:
        """Take a result."""
        self.rows[row] = result
        self._since = time.monotonic() if self._since is None else self._since
        self._job.on_row(result.get("code"))
        self.keep()

    def keep(self) -> None:
        """Write what has waited for it long enough."""
        if self._since is not None and time.monotonic() - self._since >= self._write_each_s:
            self.write()
            with self._job.writing():  # others may have improved it
                self._held = parts.load(self._uri, len(self.rows), self._job.columns)

    @property
    def unwritten(self) -> bool:
        """Whether there are results that are not in the part."""
        return self._since is not None

    def write(self) -> None:
        start = time.perf_counter()
        with self._job.writing():
            parts.commit(self._uri, self._shard.table, self.rows, self._held, self._job)
        self._job.spend("write", time.perf_counter() - start)
        self._since = None


def _filled(
    part: _Part, shard: Shard, job: Job, pipeline: Pipeline, todo: Sequence[int]
) -> tuple[int, int]:
    """Find the rows of `todo`; give how many were scored and how many carried."""
    asked = requests(shard.table, job.folder)
    for row in (row for row in todo if asked[row].no_roi is not None):
        part.found(row, results.without_roi(*(asked[row].no_roi or ())))
    left = [row for row in todo if asked[row].no_roi is None]
    carried = 0
    if job.previous is not None:
        find = partial(_previous, job.previous, job, pipeline.limits)
        todo, left = left, []
        previous = pipeline.fetching.each(find, [asked[row] for row in todo])
        for row, found in zip(todo, previous, strict=True):
            if found is not None:
                part.found(row, found)
                carried += 1
            else:
                left.append(row)
    for row, result in pipeline.rows({row: asked[row] for row in left}, part.keep):
        part.found(row, result)
    return len(left), carried


def _previous(
    previous: PreviousResults, job: Job, limits: Limits, request: Request
) -> results.Row | None:
    if job.stop.is_set():
        raise CancelledError
    try:
        return previous.find(request, limits.object_bytes)
    except UserError:
        raise
    except Exception:  # of any kind: fetching it fails, too
        return None
