"""Ray as the scheduler of shards: a worker process for each GPU, or for each node.

Plain actors and `ray.wait`, not `ray.data`: a shard writes its own part and may be scored twice, so
all that is needed of Ray is to run a call on a node and to report a lost worker. What a dataset
adds (blocks, its own writers, hidden retries) hides which shard was lost and why. Ray's own
restarts of actors are not used either: the shards of a worker that finds no place again would wait
for it for ever.

A worker that dies, or whose node does, loses nothing: its shards go to others, one at a time, so
that a shard that kills workers is found. A new worker replaces it as soon as one fits.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa

from archives.packing.loader import Description
from batch.executors.local import AT_ONCE
from batch.executors.ray_cluster import joined
from batch.executors.ray_resources import Fleet, fleet
from batch.executors.ray_worker import Opener, ShardReport, Worker, portable
from batch.manifest.read import encoded
from batch.scoring.archive_file import open_archive
from batch.scoring.fetching import Limits
from batch.scoring.job import Archive, Job
from batch.scoring.shards import Receipt, Shard
from sonode.console import UserError

_log = logging.getLogger(__name__)

_TRIES = 4
"""Workers that may fail with one shard; loads of the archive that may fail in a row."""
_GIVEN_UP = 4
"""Shards that may be given up before the run ends."""
_PATIENCE_S = 10.0
_CLOSED_WITHIN_S = 20.0


@dataclass(eq=False)
class _RayWorker:
    """A worker, as this process sees it."""

    actor: Any
    started: Any
    """Ready once the cluster has placed it."""
    loading: Any
    """Its description, until that is known."""
    shards: dict[Any, Shard] = field(default_factory=dict)
    """Those under way, by the reference of their report."""


class RayExecutor:
    """The workers of one run; an `Executor`. Made by `connected`."""

    def __init__(
        self, size: Fleet, opener: Opener, archive: str, settings: Mapping[str, object]
    ) -> None:
        import ray

        self.size = size
        self._actor = ray.remote(Worker).options(
            num_cpus=size.cpus,
            num_gpus=size.gpus,
            max_concurrency=AT_ONCE + 1,  # one for `close`
            scheduling_strategy="SPREAD",
        )
        self._given = (opener, archive, {"threads": size.cpus, **settings})
        self._workers: list[_RayWorker] = []
        self._described: Description | None = None
        self._failed_loads = 0

    def start(self) -> None:
        """Start the workers, and wait until one of them is ready."""
        for _ in range(self.size.workers):
            self._start_worker()
        while self._described is None:
            self._finished()

    @property
    def archive(self) -> Archive:
        """The first worker's description of the archive; it cannot score in this process."""
        return cast("Archive", self._described)

    def run(
        self, shards: Iterator[Shard], job: Job, limits: Limits, receipts: list[Receipt]
    ) -> Generator[str | None, None, None]:
        """Score all shards as `executors.local.Executor` says; rows are reported a shard at a time.

        What is at work when it is closed before its end, `close` ends.
        """
        import ray

        given = ray.put(portable(job))
        again: deque[Shard] = deque()
        tries: Counter[int] = Counter()
        given_up: list[Shard] = []

        def load(shard: Shard) -> int:  # one that was lost before is tried alone
            return AT_ONCE if tries[shard.index] else 1

        while len(given_up) < _GIVEN_UP:
            if not again and (shard := next(shards, None)) is not None:
                again.append(shard)
            if not again and not any(worker.shards for worker in self._workers):
                break
            ready = [worker for worker in self._workers if worker.loading is None]
            if again and ready:
                loads = [sum(map(load, worker.shards.values())) for worker in ready]
                if min(loads) + load(again[0]) <= AT_ONCE:
                    free, shard = ready[loads.index(min(loads))], again.popleft()
                    rows = encoded(shard.table)
                    free.shards[free.actor.score.remote(given, limits, shard.index, rows)] = shard
                    continue
            for shard, found in self._finished():
                if isinstance(found, ShardReport):
                    receipts.append(found.receipt)
                    for stage, seconds in found.seconds.items():
                        job.spend(stage, seconds)
                    yield from found.codes.elements()
                    continue
                tries[shard.index] += 1
                if tries[shard.index] < _TRIES:
                    again.append(shard)
                elif isinstance(found, (UserError, ray.exceptions.RayTaskError)):
                    raise found
                else:
                    given_up.append(shard)
        if given_up:
            raise UserError(
                f"{_TRIES} workers died with each of these shards; the results of others are "
                "written; re-run the same command to resume",
                [f"shard {shard.index}, of {shard.table.num_rows} rows" for shard in given_up],
            )

    def rehearse(self, table: pa.Table, job: Job) -> float:
        """Measure on one worker as `executors.local.Executor` says, and share out among all."""
        ready = next(worker for worker in self._workers if worker.loading is None)
        seconds: float = _result_of(ready.actor.rehearse.remote(portable(job), encoded(table)))
        return seconds / self.size.workers

    def close(self) -> None:
        """End all workers."""
        self._stop_workers(*self._workers)

    def _start_worker(self) -> None:
        actor: Any = self._actor.remote(*self._given)
        self._workers.append(_RayWorker(actor, actor.__ray_ready__.remote(), actor.load.remote()))

    def _stop_workers(self, *workers: _RayWorker) -> None:
        """End workers: those that have begun remove what they have unpacked."""
        import ray

        started, _ = ray.wait([m.started for m in workers], num_returns=len(workers), timeout=0)
        closed = [m.actor.close.remote() for m in workers if m.started in started]
        ray.wait(closed, num_returns=len(closed), timeout=_CLOSED_WITHIN_S)
        for worker in workers:
            self._workers.remove(worker)
            ray.kill(worker.actor)

    def _finished(self) -> list[tuple[Shard, ShardReport | Exception]]:
        """Wait for the next event; give the shards that it ended, if any.

        Raises UserError or Ray's own error if no worker is left.
        """
        import ray

        loading = {m.loading: m for m in self._workers if m.loading is not None}
        busy = {reference: worker for worker in self._workers for reference in worker.shards}
        done, _ = ray.wait([*loading, *busy], timeout=_PATIENCE_S)
        if not done:
            if len(loading) == len(self._workers):
                _log.warning(
                    "waiting for the cluster to place a worker of %d CPUs and %g GPUs",
                    *self.size[1:],
                )
            return []
        (reference,) = done
        if reference in loading:
            self._loaded(loading[reference])
            return []
        worker = busy[reference]
        try:
            report = _result_of(reference)
        except (UserError, ray.exceptions.RayError) as error:
            _log.warning(
                "a worker is lost (%s); other workers score its %d shards",
                _why(error),
                len(worker.shards),
            )
            self._stop_workers(worker)
            self._start_worker()
            return [(shard, error) for shard in worker.shards.values()]
        return [(worker.shards.pop(reference), report)]

    def _loaded(self, worker: _RayWorker) -> None:
        import ray

        try:
            found: Description = _result_of(worker.loading)
            first = self._described or found
            if found.sha256 != first.sha256:
                raise UserError(
                    f"the archive of a node differs (sha256 {found.sha256[:12]}, not "
                    f"{first.sha256[:12]}); copy the same file to all nodes"
                )
        except (UserError, ray.exceptions.RayError) as error:
            self._stop_workers(worker)
            self._failed_loads += 1
            if self._failed_loads < _TRIES:
                self._start_worker()
            if not self._workers:
                raise
            _log.warning("a worker cannot start (%s)", _why(error))
            return
        worker.loading = None
        self._failed_loads = 0
        self._described = first
        if found.engine != first.engine:
            _log.warning(
                "a worker scores with %s, the first with %s; their last digits differ: choose "
                "one with --engine",
                *(found.engine, first.engine),
            )


def _result_of(reference: Any) -> Any:
    """What a worker returned. Raises its UserError, else Ray's own error (RayError)."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else type(error).__name__


@contextmanager
def connected(
    address: str | None,
    archive: str,
    settings: Mapping[str, object],
    *,
    workers: int | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
    opener: Opener = open_archive,
) -> Iterator[RayExecutor]:
    """Join a cluster (see `batch.executors.ray_cluster`) and load `archive` on its nodes.

    `archive`: a path that every node has, or an s3:// URI; `settings` as in `loader`.
    `workers`, `cpus`, `gpus`: how many there are and what is reserved for each, see
    `batch.executors.ray_resources.fleet`. `opener`: what loads the archive there. Raises UserError.
    """
    with joined(address) as nodes:
        size = fleet(nodes, workers, cpus, gpus)
        with closing(RayExecutor(size, opener, archive, settings)) as executor:
            executor.start()
            yield executor
