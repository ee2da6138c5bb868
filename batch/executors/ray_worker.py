"""What runs on the nodes of a Ray cluster: one process with the archive, and a run's pipeline.

A worker does with a shard what the local executor does, by the same function. To it go a shard's
manifest rows, from it come receipts; images, scores and heat maps never pass through Ray. The
archive, the images and the place of the results it reaches itself, with its node's credentials.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields, replace
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import pyarrow as pa

from archives.packing.loader import Description
from batch import layout
from batch.executors.local import LocalExecutor
from batch.scoring.fetching import Limits
from batch.scoring.job import Archive, Job
from batch.scoring.pipeline import Pipeline
from batch.scoring.shards import Receipt, Shard, score_shard
from batch.storage import objects
from sonode.console import UserError

Opener = Callable[[str, Mapping[str, object]], AbstractContextManager[Archive]]
"""As `archive_file.open_archive`: (path or URI, settings) -> the archive, ready to score."""


class ShardReport(NamedTuple):
    """What a worker returns for a shard."""

    receipt: Receipt
    codes: Counter[str | None]
    """How many rows have each code; None for a score."""
    seconds: dict[str, float]
    """What each stage took in the worker since its last report."""


_STAYS = ("archive", "on_row", "seconds", "stop", "_lock")


def portable(job: Job) -> dict[str, Any]:
    """Give the fields of a job that do not belong to a process: workers make their own of them."""
    return {f.name: getattr(job, f.name) for f in fields(job) if f.name not in _STAYS}


class Worker:
    """The archive in a process of its own. Its methods may run at once, each in a thread."""

    def __init__(self, opener: Opener, archive: str, settings: Mapping[str, object]) -> None:
        self._opened = partial(opener, archive, settings)
        self._open = ExitStack()
        self._lock = Lock()  # held while something is opened or closed
        self._archive: Archive | None = None
        self._pipeline: Pipeline | None = None

    def load(self) -> Description:
        """Load the archive. Raises UserError; not in `__init__`, where Ray would hide it."""
        with self._lock:
            loaded = self._archive = self._open.enter_context(self._opened())
        return loaded.described()

    def score(self, given: dict[str, Any], limits: Limits, index: int, rows: bytes) -> ShardReport:
        """Score a shard of the job that `portable` gave, and write its part."""
        with self._lock:
            if self._pipeline is None:
                self._pipeline = self._open.enter_context(Pipeline(self._job(given), limits))
        codes: list[str | None] = []
        job = replace(self._pipeline.job, on_row=codes.append)
        shard = Shard(index=index, table=pa.ipc.open_stream(rows).read_all())
        receipt = score_shard(shard, job, self._pipeline)
        return ShardReport(receipt, Counter(codes), job.settle())

    def rehearse(self, given: dict[str, Any], rows: bytes) -> float:
        """Give the seconds that one of a few rows takes, and write nothing."""
        table = pa.ipc.open_stream(rows).read_all()
        return LocalExecutor().rehearse(table, self._job(given))

    def close(self) -> None:
        """End what is going on, and remove what the archive was unpacked to."""
        with self._lock:
            self._open.close()

    def _job(self, given: dict[str, Any]) -> Job:
        assert self._archive is not None
        job = Job(archive=self._archive, **given)
        if not (job.rehearsal or objects.is_s3(job.out)):
            # A folder of that name on each node's own disk would scatter the results.
            with job.writing():
                if not objects.exists(objects.join(job.out, layout.started(job.partition))):
                    raise UserError(
                        f"{job.out} is another folder on node {platform.node()}; give an s3:// URI "
                        "or a file system that all nodes share"
                    )
        return job
