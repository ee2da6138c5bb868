"""fetch threads -> decoders -> micro-batches -> network -> results, overlapping and bounded.

Every stage is the archive's own code: what TorchServe does with a request happens here too, in the
same functions. Rows leave in the order in which they came. Micro-batches are cut in that order, by
number of rows and by bytes: they are the same whatever the threads did meanwhile, where the same
rows could be decoded.

In memory are at most `ahead` rows per shard and, of their images, the bytes of the budget: a fetch
that finds a larger object waits. Two shards run at once, so that one begins while another ends.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

from batch import results, s3_client, storage
from batch.budget import Budget
from batch.decoders import Decoders, Task, TimeLimit
from batch.job import Job
from batch.manifest import Request
from batch.storage_errors import StorageError
from sonode_console import UserError

_log = logging.getLogger(__name__)

_BATCH_SHARE = 8  # a batch holds an eighth of the bytes in memory, or one row

Outcome = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may use."""

    fetch_threads: int = 8
    bytes_in_memory: int = 512 << 20
    """Of images that are fetched and not yet scored, encoded and decoded together."""
    object_bytes: int = 256 << 20
    """A larger object is not read; the most that a DICOM file may have (`handlers.frames`)."""
    row_seconds: float = 60.0
    """For decoding one image."""
    rows_given_up: int = 16
    """How many images may exceed that and be at it still; with more of them the run ends."""
    unwritten_seconds: float = 60.0
    """How long a row may wait to be written: a shard under way is written with the rows so far."""


assert Limits().fetch_threads <= s3_client.MAX_THREADS


class _Fetched(NamedTuple):
    etag: str
    key: str
    """Of the pixels and what is asked of them: names heat maps."""
    milliseconds: float
    task: Task[Any]


class _Ready(NamedTuple):
    """A row that waits for the network."""

    number: int
    fetched: _Fetched
    prepared: Any
    size: int
    """Its bytes."""


class Pipeline:
    """The stages of a run; one per process, shared by its shards."""

    def __init__(self, job: Job, limits: Limits) -> None:
        archive = job.archive
        self.job = job
        self.limits = limits
        self.batch_size = job.batch_size or archive.micro_batch
        self.ahead = max(4 * self.batch_size, 32)
        self.budget = Budget(limits.bytes_in_memory)
        self.decoders = Decoders(
            archive.threads,
            limit_s=limits.row_seconds,
            max_given_up=limits.rows_given_up,
            stop=job.stop,
        )
        self._fetchers = ThreadPoolExecutor(limits.fetch_threads, "fetch")
        self._lanes = ThreadPoolExecutor(archive.lanes, "forward")
        self._writers = ThreadPoolExecutor(limits.fetch_threads, "heatmap")
        self._lane_count = archive.lanes
        self._submitting = threading.Lock()
        self._shards = 0
        self._shards_end = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.job.stop.set()
        self.budget.close()
        with self._shards_end:  # they write what they have
            self._shards_end.wait_for(lambda: not self._shards)
        for pool in (self._fetchers, self._lanes, self._writers):
            pool.shutdown(cancel_futures=True)
        self.decoders.close()

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
        fetching: deque[tuple[int, Future[_Fetched | results.Row]]] = deque()
        scoring: deque[tuple[list[_Ready], Future[list[Outcome]]]] = deque()
        batch: list[_Ready] = []
        rest = iter(asked.items())
        while ended is None:
            while len(fetching) < self.ahead and (item := next(rest, None)) is not None:
                fetching.append((item[0], self._begin(item[1])))
            if not fetching:
                break
            number, future = fetching[0]
            try:
                while not self._is_there(future):
                    ended = (yield from self._finished(scoring)) or ended
                    meanwhile()
                found = self._prepared(number, future.result())
            except (UserError, CancelledError) as error:
                ended = error
                break
            fetching.popleft()
            if isinstance(found, _Ready):
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
        for waiting in scoring:
            ended = (yield from self._results(*waiting)) or ended
        if ended is not None:
            yield from self._given_up(fetching)
            raise ended

    def _is_there(self, future: Future[_Fetched | results.Row]) -> bool:
        """Wait a while for a row to be fetched and decoded. Raises what ends the run."""
        if self.job.stop.is_set():
            raise CancelledError
        if not future.done():  # or cancelled, which `wait` alone does not tell
            wait([future], 0.2)
            return False
        fetched = future.result()
        return not isinstance(fetched, _Fetched) or fetched.task.wait()

    def _is_full(self, batch: Sequence[_Ready]) -> bool:
        most = self.limits.bytes_in_memory // _BATCH_SHARE
        return len(batch) == self.batch_size or sum(ready.size for ready in batch) > most

    def _finished(
        self, scoring: deque[tuple[list[_Ready], Future[list[Outcome]]]]
    ) -> Generator[tuple[int, results.Row], None, UserError | CancelledError | None]:
        """Yield the rows of batches that are scored, and of those beyond two for each lane."""
        ended = None
        while scoring and (len(scoring) > 2 * self._lane_count or scoring[0][1].done()):
            ended = (yield from self._results(*scoring.popleft())) or ended
        return ended

    def _submitted(self, batch: list[_Ready]) -> tuple[list[_Ready], Future[list[Outcome]]]:
        self.budget.park(-sum(ready.size for ready in batch))
        return batch, self._lanes.submit(self._score, batch)

    def _given_up(
        self, fetching: Iterable[tuple[int, Future[_Fetched | results.Row]]]
    ) -> Iterator[tuple[int, results.Row]]:
        for number, future in fetching:
            if not future.done() or future.cancelled() or future.exception() is not None:
                continue
            fetched = future.result()
            if isinstance(fetched, _Fetched) and fetched.task.given_up:
                found = self._prepared(number, fetched)
                assert not isinstance(found, _Ready)
                yield number, found

    def each(self, work: Any, items: Sequence[Any]) -> Iterator[Any]:
        """Do `work` for each item on the fetch threads; the results in order."""
        return self._fetchers.map(work, items)

    def _begin(self, request: Request) -> Future[_Fetched | results.Row]:
        with self._submitting:  # threads must begin with tickets in their order
            return self._fetchers.submit(self._fetch, request, self.budget.ticket())

    def _fetch(self, request: Request, ticket: int) -> _Fetched | results.Row:
        start = time.perf_counter()
        granted: list[int] = []
        waited = 0.0

        def admit(size: int) -> None:
            nonlocal waited
            if not granted:  # a second try has its bytes already
                since = time.perf_counter()
                self.budget.acquire(ticket, size)
                granted.append(size)
                waited = time.perf_counter() - since

        try:
            found = storage.read(
                request.image_uri,
                if_match=request.etag,
                limit=self.limits.object_bytes,
                admit=admit,
            )
        except (UserError, CancelledError):
            raise
        except Exception as error:  # of any kind: one object is no reason to end a night
            self.budget.add(-sum(granted))
            kind = type(error).__name__  # its text may hold anything
            row = (
                results.failed(error.code, "fetch", str(error))
                if isinstance(error, StorageError)
                else results.failed("fetch_failed", "fetch", f"reading the object raised {kind}")
            )
            return {**row, "fetch_ms": self._spent("fetch", start, waited)}
        finally:
            admit(0)  # where there was nothing to read: the next one's turn
        milliseconds = self._spent("fetch", start, waited)
        self.budget.add(len(found.data) - sum(granted))  # what was stored by gzip has grown
        etag = found.etag
        row_in: dict[str, object] = {"image": found.data, **request.fields}
        key = ""
        if self.job.explain is not None:
            row_in["explain"] = self.job.explain
            fields = (f"{name}={text}" for name, text in request.fields.items())
            key = self.job.key(hashlib.sha256(found.data).hexdigest(), *fields)
        size = len(found.data)
        del found

        waiting = 0  # bytes that the row holds until it is scored

        def decode() -> Any:
            nonlocal waiting
            prepared = self.job.archive.preprocess(row_in)
            row_in.clear()
            if not isinstance(prepared, tuple):
                waiting = self.job.archive.nbytes(prepared)  # here: what it raises is the row's
            return prepared

        def settled(prepared: Any) -> None:  # also where it hangs: the others need the room
            self.budget.add((0 if prepared is None else waiting) - size)

        return _Fetched(etag, key, milliseconds, self.decoders.submit(decode, settled))

    def _prepared(self, number: int, fetched: _Fetched | results.Row) -> _Ready | results.Row:
        if not isinstance(fetched, _Fetched):
            return fetched
        try:
            prepared = fetched.task.result()
        except TimeLimit:
            limit = self.limits.row_seconds
            row = results.failed(
                "preprocess_timeout", "preprocess", f"not decoded within {limit:g} s"
            )
        except (UserError, CancelledError):
            raise
        except Exception as error:  # of any kind: the code is the archive's
            kind = type(error).__name__  # its text may hold anything
            row = results.failed("preprocess_failed", "preprocess", f"the service raised {kind}")
        else:
            if not isinstance(prepared, tuple):
                return _Ready(number, fetched, prepared, self.job.archive.nbytes(prepared))
            row = _failure(prepared[1])
        finally:
            self.job.spend("preprocess", fetched.task.milliseconds / 1000)
        return {**row, **self._times(fetched), "image_etag": fetched.etag}

    def _score(self, batch: Sequence[_Ready]) -> list[Outcome]:
        if self.job.stop.is_set():
            raise CancelledError
        start = time.perf_counter()
        prepared = [ready.prepared for ready in batch]
        found = _outcomes(prepared, self.job.archive)
        self.budget.add(-sum(ready.size for ready in batch))
        milliseconds = self._spent("inference", start) / len(batch)
        return [(status, {**body, "inference_ms": milliseconds}) for status, body in found]

    def _results(
        self, batch: Sequence[_Ready], future: Future[list[Outcome]]
    ) -> Generator[tuple[int, results.Row], None, UserError | CancelledError | None]:
        """Yield a batch's rows; return what ended the run meanwhile."""
        try:
            rows = (self._writers.map if self.job.explain else map)(
                self._result, batch, future.result()
            )
            for ready, row in zip(batch, rows, strict=True):
                yield ready.number, row
        except (UserError, CancelledError) as error:
            return error
        return None

    def _result(self, ready: _Ready, outcome: Outcome) -> results.Row:
        status, body = outcome
        common = {**self._times(ready.fetched), "inference_ms": body["inference_ms"]}
        if status != 200:
            return {**_failure(body), **common, "image_etag": ready.fetched.etag}
        start = time.perf_counter()
        uris = {
            head: self.job.write(f"_heatmaps/{ready.fetched.key}-{head}.png", heatmap["png"])
            for head, heatmap in body["heatmaps"].items()
        }
        self._spent("heatmaps", start)
        row = results.scored(body, etag=ready.fetched.etag, heatmap_uris=uris)
        return {**row, **common, "scored_at": datetime.now(UTC)}

    def _times(self, fetched: _Fetched) -> results.Row:
        return {"fetch_ms": fetched.milliseconds, "preprocess_ms": fetched.task.milliseconds}

    def _spent(self, stage: str, start: float, waited: float = 0.0) -> float:
        """Count what a stage took since `start`; in milliseconds."""
        seconds = time.perf_counter() - start - waited
        self.job.spend(stage, seconds)
        return 1000 * seconds


def _failure(body: Mapping[str, Any]) -> results.Row:
    return results.failed(body["code"], body["stage"], body["message"])


def _outcomes(prepared: Sequence[Any], archive: Any) -> Sequence[Outcome]:
    """Score rows together; where the archive raises, one by one, so that only the culprit fails."""
    try:
        outcomes: Sequence[Outcome] = archive.score_prepared(prepared)
        if len(outcomes) != len(prepared):
            raise ValueError("not one outcome per row")
        return outcomes
    except Exception as error:  # of any kind: the code is the archive's
        kind = type(error).__name__  # its text may hold anything
        if archive.device_is_lost():
            raise UserError(
                f"the device does not answer any more ({kind}); started again, the run goes on "
                "from here"
            ) from None
        if len(prepared) == 1:
            body = {"code": "inference_failed", "stage": "inference"}
            return [(500, {**body, "message": f"the archive's service raised {kind}"})]
        _log.warning("a batch of %d images raised %s: scoring them one by one", len(prepared), kind)
        return [_outcomes([item], archive)[0] for item in prepared]
