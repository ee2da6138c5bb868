"""What runs on the nodes of a Ray cluster: one process with the archive, and a run's pipeline.

A worker does with a shard what the local engine does, by the same function. To it go a shard's
manifest rows, from it come receipts; images, scores and heat maps never pass through Ray. The
archive, the images and the place of the results it reaches itself, with its node's credentials.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, NamedTuple

import pyarrow as pa

from batch import claims, storage
from batch.job import Archive, Job
from batch.local_engine import LocalEngine
from batch.opened_archive import opened
from batch.pipeline import Limits, Pipeline
from batch.shards import Receipt, Shard, score_shard
from sonode_console import UserError


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an archive says of itself once it is loaded; a `batch.job.Described`."""

    name: str
    version: str
    sha256: str
    engine: str
    heads: Mapping[str, Sequence[str]]
    methods: Sequence[str]
    score_reference: Mapping[str, Sequence[int]]


class Order(NamedTuple):
    """What a worker makes its own job and pipeline from."""

    sha256: str
    """Of the archive that it has to have loaded."""
    job: dict[str, Any]
    """The fields of the `Job` that do not belong to a process."""
    limits: Limits


class Told(NamedTuple):
    """What a worker tells of a shard."""

    receipt: Receipt
    codes: Counter[str | None]
    """How many rows have each code; None for a score."""
    seconds: dict[str, float]
    """What each stage took in the worker since it told last."""


class Worker:
    """The archive in a process of its own. Its methods may run at once, each in a thread."""

    def __init__(self, archive: str, settings: Mapping[str, object]) -> None:
        self._wanted = (archive, settings)
        self._open = ExitStack()
        self._lock = Lock()
        self._archive: Archive | None = None
        self._pipeline: Pipeline | None = None

    def load(self) -> Description:
        """Load the archive. Raises UserError; not in `__init__`, where Ray would hide it."""
        loaded = self._open.enter_context(opened(*self._wanted))
        self._archive = loaded
        return Description(
            **{name: getattr(loaded, name) for name in Description.__dataclass_fields__}
        )

    def score(self, order: Order, index: int, rows: bytes) -> Told:
        """Score a shard and write its part."""
        with self._lock:
            if self._pipeline is None:
                self._pipeline = self._open.enter_context(Pipeline(self._job(order), order.limits))
        codes: list[str | None] = []
        job = replace(self._pipeline.job, on_row=codes.append)
        shard = Shard(index=index, table=pa.ipc.open_stream(rows).read_all())
        receipt = score_shard(shard, job, self._pipeline)
        return Told(receipt, Counter(codes), job.settle())

    def rehearse(self, order: Order, rows: bytes) -> float:
        """Give the seconds that one of a few rows takes, and write nothing."""
        table = pa.ipc.open_stream(rows).read_all()
        return LocalEngine().rehearse(table, self._job(order))

    def close(self) -> None:
        """End what is going on, and remove what the archive was unpacked to."""
        self._open.close()

    def _job(self, order: Order) -> Job:
        assert self._archive is not None
        node = platform.node()
        if self._archive.sha256 != order.sha256:
            raise UserError(
                f"the archive on node {node} is another than the first worker's (sha256 "
                f"{self._archive.sha256[:12]}, not {order.sha256[:12]}): give every node the same"
            )
        job = Job(archive=self._archive, **order.job)
        if not (job.rehearsal or storage.is_s3(job.out)):
            # A folder of that name on each node's own disk would scatter the results.
            with job.writing():
                if not storage.exists(claims.started(job.out, job.partition)):
                    raise UserError(
                        f"{job.out} is not the same folder on node {node}: results of several "
                        "nodes need s3:// or a file system that all of them share"
                    )
        return job


_TRAVELS = (
    "out",
    "date",
    "folder",
    "explain",
    "batch_size",
    "retry_failed",
    "earlier",
    "rehearsal",
)


def order(job: Job, limits: Limits) -> Order:
    """Make of a job what can travel."""
    return Order(job.archive.sha256, {name: getattr(job, name) for name in _TRAVELS}, limits)
