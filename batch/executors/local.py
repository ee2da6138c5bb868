"""What schedules shards, and the scheduler that needs no cluster: threads of this process.

An executor decides where and when a shard is scored, never how: that is `shards.score_shard`,
the same for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Protocol

import pyarrow as pa

from batch.manifest.read import requests
from batch.scoring.fetching import Limits
from batch.scoring.job import Job
from batch.scoring.pipeline import Pipeline
from batch.scoring.shards import Receipt, Shard, score_shard

AT_ONCE = 2
"""Concurrent shards in one process: while one ends, the next has started."""


class Executor(Protocol):
    """Where shards are scored."""

    def run(
        self, shards: Iterator[Shard], job: Job, limits: Limits, receipts: list[Receipt]
    ) -> Generator[str | None, None, None]:
        """Score all shards and add their receipts.

        Yields a code for each row once it is known, None for a score. Closed before its end, it
        writes what was found and leaves nothing at work behind it. Raises UserError if the run
        cannot continue.
        """

    def rehearse(self, table: pa.Table, job: Job) -> float:
        """Score a few manifest rows, write nothing, and give the seconds that a row takes."""


class LocalExecutor:
    """Scores with the job's own archive, in this process."""

    def run(
        self, shards: Iterator[Shard], job: Job, limits: Limits, receipts: list[Receipt]
    ) -> Generator[str | None, None, None]:
        """Score all shards, a few at a time, as `Executor` says."""
        codes: SimpleQueue[str | None] = SimpleQueue()
        job = replace(job, on_row=codes.put)
        with ThreadPoolExecutor(AT_ONCE) as scorers, Pipeline(job, limits) as pipeline:
            running: set[Future[Receipt]] = set()
            while True:
                while len(running) < AT_ONCE and (shard := next(shards, None)) is not None:
                    running.add(scorers.submit(score_shard, shard, job, pipeline))
                if not running:
                    break
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                receipts += [future.result() for future in done]
                yield from _drained(codes)
            yield from _drained(codes)

    def rehearse(self, table: pa.Table, job: Job) -> float:
        """Measure as `Executor` says."""
        asked = {
            row: request
            for row, request in enumerate(requests(table, job.folder))
            if request.no_roi is None
        }
        with Pipeline(job, Limits()) as pipeline:
            begin = time.perf_counter()
            rows = sum(1 for _ in pipeline.rows(asked))
            return (time.perf_counter() - begin) / max(rows, 1)


def _drained(codes: SimpleQueue[str | None]) -> Iterator[str | None]:
    try:
        while True:
            yield codes.get_nowait()
    except Empty:
        return
