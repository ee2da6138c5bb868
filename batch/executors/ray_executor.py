"""Ray as the scheduler of shards: a worker process for each GPU, or for each node.

Plain actors and `ray.wait`, not `ray.data`: a shard writes its own part and may be scored twice, so
all that is asked of Ray is to run a call on a node and to say when a worker is gone. What a dataset
adds (blocks, its own writers, retries out of sight) stands in the way of telling which shard was
lost and why. Ray's own restarts of actors are not used either: the shards of a worker that finds no
place again would wait for it for ever.

A worker that dies, or whose node does, loses nothing: its shards go to others, one at a time, so
that a shard that kills workers is told from its neighbour. A new worker takes its place as soon as
the cluster has room.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa

from batch.executors.local import AT_ONCE
from batch.executors.ray_cluster import Fleet, fleet, joined
from batch.executors.ray_worker import Description, Opener, Told, Worker, portable
from batch.manifest.read import encoded
from batch.scoring.fetching import Limits
from batch.scoring.job import Archive, Job
from batch.scoring.opened_archive import opened
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
class _Member:
    """A worker, as it is known here."""

    actor: Any
    born: Any
    """Known once the cluster had room for it."""
    loading: Any
    """Its description, until that is known."""
    shards: dict[Any, Shard] = field(default_factory=dict)
    """What it is at, by the reference of what it will tell."""


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
            max_concurrency=AT_ONCE + 1,  # one to be told to close
            scheduling_strategy="SPREAD",
        )
        self._given = (opener, archive, {"threads": size.cpus, **settings})
        self._members: list[_Member] = []
        self._described: Description | None = None
        self._failed_loads = 0

    def start(self) -> None:
        """Hire the workers, and wait until one of them is ready."""
        for _ in range(self.size.workers):
            self._hire()
        while self._described is None:
            self._news()

    @property
    def archive(self) -> Archive:
        """What the first worker says of the archive; it cannot score in this process."""
        return cast("Archive", self._described)

    def run(
        self, shards: Iterator[Shard], job: Job, limits: Limits, receipts: list[Receipt]
    ) -> Generator[str | None, None, None]:
        """Score all shards as `executors.local.Executor` says; rows are told a shard at a time.

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
            if not again and not any(member.shards for member in self._members):
                break
            ready = [member for member in self._members if member.loading is None]
            if again and ready:
                loads = [sum(map(load, member.shards.values())) for member in ready]
                if min(loads) + load(again[0]) <= AT_ONCE:
                    free, shard = ready[loads.index(min(loads))], again.popleft()
                    rows = encoded(shard.table)
                    free.shards[free.actor.score.remote(given, limits, shard.index, rows)] = shard
                    continue
            for shard, told in self._news():
                if isinstance(told, Told):
                    receipts.append(told.receipt)
                    for stage, seconds in told.seconds.items():
                        job.spend(stage, seconds)
                    yield from told.codes.elements()
                    continue
                tries[shard.index] += 1
                if tries[shard.index] < _TRIES:
                    again.append(shard)
                elif isinstance(told, (UserError, ray.exceptions.RayTaskError)):
                    raise told
                else:
                    given_up.append(shard)
        if given_up:
            raise UserError(
                f"{_TRIES} workers each have died of these shards, and they are given up; what "
                "else there is stands, and started again the run goes on from there",
                [f"shard {shard.index}, of {shard.table.num_rows} rows" for shard in given_up],
            )

    def rehearse(self, table: pa.Table, job: Job) -> float:
        """Measure on one worker as `executors.local.Executor` says, and share out among all."""
        ready = next(member for member in self._members if member.loading is None)
        seconds: float = _told(ready.actor.rehearse.remote(portable(job), encoded(table)))
        return seconds / self.size.workers

    def close(self) -> None:
        """End all workers."""
        self._dismiss(*self._members)

    def _hire(self) -> None:
        actor: Any = self._actor.remote(*self._given)
        self._members.append(_Member(actor, actor.__ray_ready__.remote(), actor.load.remote()))

    def _dismiss(self, *members: _Member) -> None:
        """End workers: those that have begun remove what they have unpacked."""
        import ray

        born, _ = ray.wait([m.born for m in members], num_returns=len(members), timeout=0)
        closed = [m.actor.close.remote() for m in members if m.born in born]
        ray.wait(closed, num_returns=len(closed), timeout=_CLOSED_WITHIN_S)
        for member in members:
            self._members.remove(member)
            ray.kill(member.actor)

    def _news(self) -> list[tuple[Shard, Told | Exception]]:
        """Wait for what comes next: what has become of shards, of none of them perhaps.

        Raises UserError, or what Ray says, where no worker is left.
        """
        import ray

        loading = {m.loading: m for m in self._members if m.loading is not None}
        busy = {reference: member for member in self._members for reference in member.shards}
        done, _ = ray.wait([*loading, *busy], timeout=_PATIENCE_S)
        if not done:
            if len(loading) == len(self._members):
                _log.warning("waiting for a worker; each takes %d CPUs, %g GPUs", *self.size[1:])
            return []
        (reference,) = done
        if reference in loading:
            self._loaded(loading[reference])
            return []
        member = busy[reference]
        try:
            told = _told(reference)
        except (UserError, ray.exceptions.RayError) as error:
            _log.warning(
                "a worker is lost (%s), and its %d shards go to others",
                _why(error),
                len(member.shards),
            )
            self._dismiss(member)
            self._hire()
            return [(shard, error) for shard in member.shards.values()]
        return [(member.shards.pop(reference), told)]

    def _loaded(self, member: _Member) -> None:
        import ray

        try:
            found: Description = _told(member.loading)
            first = self._described or found
            if found.sha256 != first.sha256:
                raise UserError(
                    f"a node has another archive there than the first (sha256 {found.sha256[:12]}, "
                    f"not {first.sha256[:12]}); give all nodes the same"
                )
        except (UserError, ray.exceptions.RayError) as error:
            self._dismiss(member)
            self._failed_loads += 1
            if self._failed_loads < _TRIES:
                self._hire()
            if not self._members:
                raise
            _log.warning("a worker cannot begin (%s)", _why(error))
            return
        member.loading = None
        self._failed_loads = 0
        self._described = first
        if found.engine != first.engine:
            _log.warning(
                "a worker scores with %s, the first with %s, and last digits will differ: choose "
                "one with --engine",
                *(found.engine, first.engine),
            )


def _told(reference: Any) -> Any:
    """What a worker tells. Raises its UserError as it is; else what Ray says (RayError)."""
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
    opener: Opener = opened,
) -> Iterator[RayExecutor]:
    """Join a cluster (see `batch.executors.ray_cluster`) and load `archive` on its nodes.

    `archive`: a path that every node has, or an s3:// URI; `settings` as in `loader`.
    `workers`, `cpus`, `gpus`: how many there are and what is reserved for each, see
    `batch.executors.ray_cluster.fleet`. `opener`: what loads the archive there. Raises UserError.
    """
    with joined(address) as nodes:
        size = fleet(nodes, workers, cpus, gpus)
        with closing(RayExecutor(size, opener, archive, settings)) as executor:
            executor.start()
            yield executor
