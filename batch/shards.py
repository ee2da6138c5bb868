"""A shard: a slice of the manifest that is fetched, scored and written by one function.

It may run in any order, twice, or elsewhere: `score_shard` needs the shard and the job, gives a
receipt, and what stands in the results afterwards is the same (see `batch.parts`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from batch import parts, results, storage
from batch.decoders import TooManyHang
from batch.job import Job
from batch.manifest import Request, digest, requests
from batch.pipeline import Pipeline
from batch.storage_errors import StorageError


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A slice of the manifest."""

    index: int
    table: pa.Table

    def part(self, job: Job) -> str:
        """Name the file of this shard's results, below the folder of the results."""
        key = job.key(digest(self.table), job.folder)
        return f"{job.partition}/part-{self.index:05d}-{key}.parquet"


class Receipt(NamedTuple):
    """What one call did for a shard; the rows themselves are in its part."""

    part: str
    scored: int
    """Rows that went through the archive, or failed to get there, in this call."""
    carried: int
    """Rows that were taken over from earlier results."""


def score_shard(shard: Shard, job: Job, pipeline: Pipeline) -> Receipt:
    """Score what is missing in a shard's part, or has failed there, and write the part.

    Raises UserError where the run is over. If that is so because images hang, what was found is
    written nevertheless, so that a run that leaves them out gets further.
    """
    name = shard.part(job)
    uri = storage.join(job.out, name)
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
    asked = requests(shard.table, job.folder)
    rows: list[results.Row] = list(held.rows) if held else [{}] * shard.table.num_rows
    carried = 0
    for row, found in zip(
        todo, pipeline.each(lambda n: _earlier(asked[n], job), todo), strict=True
    ):
        if found is not None:
            rows[row] = found
            carried += 1
            job.on_row(None)
    todo = [row for row in todo if rows[row].get("status") != results.OK]
    too_many: TooManyHang | None = None
    try:
        for row, result in pipeline.rows({row: asked[row] for row in todo}):
            rows[row] = result
            job.on_row(result.get("code"))
    except TooManyHang as error:
        too_many = error
        left = results.failed(results.NOT_REACHED, "fetch", "the run ended before its turn")
        rows = [row or left for row in rows]
    start = time.perf_counter()
    with job.writing():
        parts.commit(uri, shard.table, rows, held, job)
    job.spend("write", time.perf_counter() - start)
    if too_many is not None:
        raise too_many
    return Receipt(name, len(todo), carried)


def _earlier(request: Request, job: Job) -> results.Row | None:
    if job.earlier is None:
        return None
    try:
        return job.earlier.find(request)
    except StorageError:
        return None  # fetching it will tell
