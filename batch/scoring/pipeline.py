"""fetch threads -> decoders -> micro-batches -> network -> results, overlapping and bounded.

Every stage is the archive's own code: what TorchServe does with a request happens here too, in the
same functions. Rows leave in the order in which they came. Micro-batches are cut in that order, by
number of rows and by bytes: they are the same whatever the threads did meanwhile, where the same
rows could be decoded.

In memory are at most `ahead` rows per shard and, of their images and of heat maps that wait to be
written, the bytes of the budget: a fetch that finds a larger object waits. Two shards run at once,
so that one begins while another ends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Self, TypeAlias

from archives.packing.loader import Outcome
from batch import layout
from batch.manifest.read import Request
from batch.results import schema as results
from batch.scoring.fetching import Fetched, Fetching, Limits, Ready, failure
from batch.scoring.job import Archive, Job
from sonode.console import UserError

Scored: TypeAlias = Future[list[Future[results.Row]]]
"""A batch in the network; its rows, whose heat maps are written then."""
_BATCH_SHARE = 8  # a batch holds an eighth of the bytes in memory, or one row


class Pipeline:
    """The stages of a run; one per process, shared by its shards."""

    def __init__(self, job: Job, limits: Limits) -> None:
        archive = job.archive
        self.job = job
        self.limits = limits
        self.batch_size = job.batch_size or archive.micro_batch
        self.ahead = max(4 * self.batch_size, 32)
        self.fetching = Fetching(job, limits)
        self.budget = self.fetching.budget
        self._forward_threads = ThreadPoolExecutor(archive.max_concurrency, "forward")
        self._writers = ThreadPoolExecutor(limits.fetch_threads, "heatmap")
        self._max_concurrency = archive.max_concurrency
        self._unwritable: UserError | None = None
        self._shards = 0
        self._shards_end = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.job.stop.set()
        self.budget.close()
        with self._shards_end:  # they write what they have
            self._shards_end.wait_for(lambda: not self._shards)
        self.fetching.close()
        for pool in (self._forward_threads, self._writers):
            pool.shutdown(cancel_futures=True)

    @contextmanager
    def shard(self) -> Iterator[None]:
        """Have the end of the pipeline wait for the end of the block. Raises CancelledError."""
        with self._shards_end:
            if self.job.stop.is_set():
                raise CancelledError
            self._shards += 1
        try:
            yield
        finally:
            with self._shards_end:
                self._shards -= 1
                self._shards_end.notify_all()

    def rows(
        self, asked: Mapping[int, Request], meanwhile: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, results.Row]]:
        """Score images; yield each one's number and result row.

        `meanwhile` is called, now and then, as long as the next row is waited for.

        Raises UserError where the run is over, and CancelledError where it was stopped, once those
        that were scored, and those that hang, have been yielded.
        """
        ended: UserError | CancelledError | None = None
        fetching: deque[tuple[int, Future[Fetched | results.Row]]] = deque()
        scoring: deque[tuple[list[int], Scored]] = deque()
        batch: list[Ready] = []
        rest = iter(asked.items())
        while ended is None:
            while len(fetching) < self.ahead and (item := next(rest, None)) is not None:
                fetching.append((item[0], self.fetching.begin(item[1])))
            if not fetching:
                break
            number, future = fetching[0]
            try:
                while not self.fetching.is_there(future):
                    if (error := (yield from self._finished(scoring))) is not None:
                        raise error
                    meanwhile()
                found = self.fetching.prepared(number, future.result())
            except (UserError, CancelledError) as raised:
                ended = raised
                break
            fetching.popleft()
            if isinstance(found, Ready):
                batch.append(found)
                self.budget.park(found.size)
            else:
                yield number, found
            if self._is_full(batch):
                scoring.append(self._submitted(batch))
                batch = []
            ended = (yield from self._finished(scoring)) or ended
        if batch:
            scoring.append(self._submitted(batch))
        del batch
        for waiting in scoring:
            ended = (yield from self._results(*waiting)) or ended
        if ended is not None:
            yield from self.fetching.given_up(fetching)
            raise ended

    def _is_full(self, batch: Sequence[Ready]) -> bool:
        most = self.limits.bytes_in_memory // _BATCH_SHARE
        return len(batch) == self.batch_size or sum(ready.size for ready in batch) > most

    def _finished(
        self, scoring: deque[tuple[list[int], Scored]]
    ) -> Generator[tuple[int, results.Row], None, UserError | CancelledError | None]:
        """Yield the rows of batches that are done, and wait for those beyond two a thread."""
        ended = None
        while scoring and (len(scoring) > 2 * self._max_concurrency or _is_done(scoring[0][1])):
            ended = (yield from self._results(*scoring.popleft())) or ended
        return ended

    def _submitted(self, batch: list[Ready]) -> tuple[list[int], Scored]:
        """Its numbers alone stay: the images go once they are scored, as the budget has it."""
        self.budget.park(-sum(ready.size for ready in batch))
        return [ready.number for ready in batch], self._forward_threads.submit(self._score, batch)

    def _score(self, batch: Sequence[Ready]) -> list[Future[results.Row]]:
        if self.job.stop.is_set():
            raise CancelledError
        start = time.perf_counter()
        prepared = [ready.prepared for ready in batch]
        found = _outcomes(prepared, self.job.archive)
        maps = [
            sum(len(it["png"]) for it in body.get("heatmaps", {}).values()) for _, body in found
        ]
        self.budget.add(sum(maps) - sum(ready.size for ready in batch))
        milliseconds = self.job.spent("inference", start) / len(batch)
        return [
            self._row(ready.fetched, Outcome(status, {**body, "inference_ms": milliseconds}), size)
            for ready, (status, body), size in zip(batch, found, maps, strict=True)
        ]

    def _row(self, fetched: Fetched, outcome: Outcome, maps: int) -> Future[results.Row]:
        """The row; its heat maps, of so many bytes, are written while others are scored."""
        if self.job.explain:
            return self._writers.submit(self._written, fetched, outcome, maps)
        row: Future[results.Row] = Future()
        row.set_result(self._result(fetched, outcome))
        return row

    def _results(
        self, numbers: Sequence[int], future: Scored
    ) -> Generator[tuple[int, results.Row], None, UserError | CancelledError | None]:
        """Yield a batch's rows; return what ended the run meanwhile."""
        ended = None
        try:
            for number, row in zip(numbers, future.result(), strict=True):
                if isinstance(error := row.exception(), UserError):
                    ended = error
                else:
                    yield number, row.result()
        except (UserError, CancelledError) as error:
            return error
        return ended

    def _written(self, fetched: Fetched, outcome: Outcome, maps: int) -> results.Row:
        """The row with its heat maps; none is tried, each for minutes, once one has failed."""
        try:
            if self._unwritable is not None:
                raise self._unwritable
            return self._result(fetched, outcome)
        except UserError as error:
            self._unwritable = error
            raise
        finally:
            self.budget.add(-maps)

    def _result(self, fetched: Fetched, outcome: Outcome) -> results.Row:
        status, body = outcome
        common = {**fetched.times, "inference_ms": body["inference_ms"]}
        if status != 200:
            return {**failure(body), **common, "image_etag": fetched.etag}
        start = time.perf_counter()
        uris = {
            head: self.job.write(layout.heat_map(fetched.key, head), heatmap["png"])
            for head, heatmap in body["heatmaps"].items()
        }
        self.job.spent("heatmaps", start)
        row = results.scored(body, etag=fetched.etag, heatmap_uris=uris)
        return {**row, **common, "scored_at": datetime.now(UTC)}


def _is_done(batch: Scored) -> bool:
    """Whether a batch is scored, and its rows are there; or it has failed."""
    if not batch.done() or batch.cancelled() or batch.exception():
        return batch.done()
    return all(row.done() for row in batch.result())


def _outcomes(prepared: Sequence[Any], archive: Archive) -> Sequence[Outcome]:
    """Score rows through the archive's service, which tries those of a failed batch one by one.

    Raises UserError if its device is lost: then every row would fail.
    """
    try:
        outcomes: Sequence[Outcome] = archive.score_prepared(prepared)
        if len(outcomes) != len(prepared):
            raise ValueError("not one outcome per row")
    except Exception as error:  # of any kind: the code is the archive's, and its text may be, too
        message = f"the archive's service raised {type(error).__name__}"
        body = {"code": "inference_failed", "stage": "inference", "message": message}
        outcomes = [Outcome(500, body)] * len(prepared)
    failed = [body["code"] for status, body in outcomes if status >= 500]
    if failed and archive.device_is_lost():
        raise UserError(
            f"the device no longer responds ({failed[0]}); re-run the same command to resume"
        )
    return outcomes
