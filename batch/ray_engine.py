"""Ray as the scheduler of shards: a worker process for each GPU, or for each node.

Plain actors and `ray.wait`, not `ray.data`: a shard writes its own part and may be scored twice, so
all that is asked of Ray is to run a call on a node and to say when a worker is gone. What a dataset
adds (blocks, its own writers, retries out of sight, an actor pool that waits for CPUs for ever)
stands in the way of telling which shard was lost and why.

A worker that dies, or whose node does, loses nothing: its shards go to others, and a new worker
takes its place as soon as the cluster has room. A shard that four workers have died of, or failed
with, is given up.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import pyarrow as pa

from batch.job import Archive, Job
from batch.local_engine import AT_ONCE
from batch.manifest import encoded
from batch.pipeline import Limits
from batch.ray_cluster import Fleet, fleet, joined
from batch.ray_worker import Description, Told, Worker, order
from batch.shards import Receipt, Shard
from sonode_console import UserError

_log = logging.getLogger(__name__)

_TRIES = 4
"""Workers that may fail with a shard, shards that may be given up, loads that may fail in a row."""
_TOLD_EVERY_S = 10.0
_CLOSED_WITHIN_S = 20.0


@dataclass(eq=False)
class _Member:
    """A worker, as it is known here."""

    actor: Any
    born: Any
    """Known once the cluster had room for it."""
    loading: Any
    """Its description, until that is known."""
    shards: dict[Any, Shard] = field(default_factory=dict)
    """What it is at, by the reference of what it will tell."""


class _Lost(NamedTuple):
    """The shards of a worker that is gone, and what it said, if it could."""

    shards: Sequence[Shard]
    why: Exception | None


class RayEngine:
    """The workers of a run; an `Engine`. Made by `connected`."""

    def __init__(
        self, archive: str, settings: Mapping[str, object], size: Fleet, worker: type[Worker]
    ) -> None:
        import ray

        self.size = size
        self._actor = ray.remote(worker).options(
            num_cpus=size.cpus,
            num_gpus=size.gpus,
            max_concurrency=AT_ONCE + 1,  # one to be told to close
            scheduling_strategy="SPREAD",
        )
        self._given = (archive, {"threads": max(1, int(size.cpus)), **settings})
        self._members: list[_Member] = []
        self._described: Description | None = None
        self._failed_loads = 0

    def start(self) -> None:
        """Hire the workers, and wait until one of them is ready."""
        for _ in range(self.size.workers):
            self._hire()
        while self._described is None:
            self._next()

    @property
    def archive(self) -> Archive:
        """What the first worker says of the archive; it cannot score in this process."""
        return cast("Archive", self._described)

    def run(
        self, shards: Iterator[Shard], job: Job, limits: Limits, receipts: list[Receipt]
    ) -> Generator[str | None, None, None]:
        """Score all shards as `batch.local_engine.Engine` says; rows are told a shard at a time."""
        import ray

        given = ray.put(order(job, limits))
        again: deque[Shard] = deque()
        tries: Counter[int] = Counter()
        lost: list[Shard] = []
        while True:
            if not again and (shard := next(shards, None)) is not None:
                again.append(shard)
            if not again and not any(member.shards for member in self._members):
                break
            free = self._free()
            if free is not None and again:
                shard = again.popleft()
                sent = free.actor.score.remote(given, shard.index, encoded(shard.table))
                free.shards[sent] = shard
                continue
            told = self._next()
            if isinstance(told, Told):
                receipts.append(told.receipt)
                for stage, seconds in told.seconds.items():
                    job.spend(stage, seconds)
                yield from told.codes.elements()
            elif told is not None:
                tries.update(shard.index for shard in told.shards)
                over = [shard for shard in told.shards if tries[shard.index] >= _TRIES]
                if over and told.why is not None:
                    raise told.why
                lost += over
                if len(lost) >= _TRIES:
                    break
                again.extend(shard for shard in told.shards if shard not in over)
        if lost:
            raise UserError(
                f"{_TRIES} workers each have died of these shards, and they are given up; what "
                "else there is stands, and started again the run goes on from there",
                [f"shard {shard.index}, of {shard.table.num_rows} rows" for shard in lost],
            )

    def rehearse(self, table: pa.Table, job: Job) -> float:
        """Measure on one worker as `batch.local_engine.Engine` says, and share out among all."""
        import ray

        ready = next(member for member in self._members if member.loading is None)
        given = order(job, Limits())
        try:
            seconds: float = ray.get(ready.actor.rehearse.remote(given, encoded(table)))
        except ray.exceptions.RayError as error:
            raise _own(error) or error from None
        return seconds / self.size.workers

    def close(self) -> None:
        """End all workers: those that have begun remove what they have unpacked."""
        import ray

        born, _ = ray.wait(
            [member.born for member in self._members], num_returns=len(self._members), timeout=0
        )
        closed = [m.actor.close.remote() for m in self._members if m.born in born]
        ray.wait(closed, num_returns=len(closed), timeout=_CLOSED_WITHIN_S)
        for member in self._members:
            ray.kill(member.actor)

    def _hire(self) -> None:
        actor: Any = self._actor.remote(*self._given)
        self._members.append(_Member(actor, actor.__ray_ready__.remote(), actor.load.remote()))

    def _free(self) -> _Member | None:
        """The worker with the fewest shards, if it can take one more."""
        ready = [member for member in self._members if member.loading is None]
        least = min(ready, key=lambda member: len(member.shards), default=None)
        return least if least is not None and len(least.shards) < AT_ONCE else None

    def _next(self) -> Told | _Lost | None:
        """Wait for what comes next: news of shards, or None for none of them.

        Raises UserError where no worker is left.
        """
        import ray

        loading = {m.loading: m for m in self._members if m.loading is not None}
        busy = {sent: member for member in self._members for sent in member.shards}
        done, _ = ray.wait([*loading, *busy], num_returns=1, timeout=_TOLD_EVERY_S)
        if not done:
            if len(loading) == len(self._members):
                _log.warning(
                    "waiting for a worker: Ray reserves %g CPUs and %g GPUs for each",
                    *self.size[1:],
                )
            return None
        (reference,) = done
        if reference in loading:
            self._loaded(loading[reference])
            return None
        member = busy[reference]
        try:
            told: Told = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._members.remove(member)
            ray.kill(member.actor)
            self._hire()
            why = _own(error)
            _log.warning(
                "a worker was lost (%s); its %d shards go to others",
                why if isinstance(why, UserError) else type(error).__name__,
                len(member.shards),
            )
            return _Lost(list(member.shards.values()), why)
        del member.shards[reference]
        return told

    def _loaded(self, member: _Member) -> None:
        import ray

        try:
            found: Description = ray.get(member.loading)
            first = self._described or found
            if found.sha256 != first.sha256:
                raise UserError(
                    f"a node has another archive there than the first (sha256 {found.sha256[:12]}, "
                    f"not {first.sha256[:12]}); give all nodes the same"
                )
        except (ray.exceptions.RayError, UserError) as error:
            self._members.remove(member)
            ray.kill(member.actor)
            self._failed_loads += 1
            if self._failed_loads < _TRIES:
                self._hire()
            why = _own(error)
            if not self._members:
                if isinstance(why, UserError):
                    raise why from None
                raise
            _log.warning("a worker cannot begin: %s", why or type(error).__name__)
            return
        member.loading = None
        self._failed_loads = 0
        self._described = first
        if found.engine != first.engine:
            _log.warning(
                "a worker scores with %s, the first with %s: last digits differ; choose one with "
                "--inference-engine",
                found.engine,
                first.engine,
            )


def _own(error: Exception) -> Exception | None:
    """What the worker's own code raised, or None where the worker or its node is gone."""
    import ray

    if not isinstance(error, ray.exceptions.RayTaskError):
        return error if isinstance(error, UserError) else None
    # Of a fault of ours Ray's own error has the worker's traceback.
    return error.cause if isinstance(error.cause, UserError) else error


@contextmanager
def connected(
    address: str | None,
    archive: str,
    settings: Mapping[str, object],
    *,
    workers: int | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    worker: type[Worker] = Worker,
) -> Iterator[RayEngine]:
    """Join a cluster (see `batch.ray_cluster`) and load `archive` on its nodes.

    `archive`: a path that every node has, or an s3:// URI. Raises UserError.
    """
    with joined(address) as nodes:
        engine = RayEngine(archive, settings, fleet(nodes, workers, cpus, gpus), worker)
        with closing(engine):
            engine.start()
            yield engine
