"""The first stages of a row: its image is fetched, and decoded by the archive's own code.

Whatever fails here is the row's failure: only what no row could pass (credentials, too many images
that hang) ends the run.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple

from batch.manifest.read import Request
from batch.results import schema as results
from batch.scoring.budget import Budget
from batch.scoring.decoders import Decoders, Task, TimeLimit
from batch.scoring.job import Job
from batch.storage import objects, s3_client
from batch.storage.errors import StorageError
from sonode.console import UserError
from sonode.defaults import FETCH_THREADS, MEMORY_MB, ROW_SECONDS


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may use."""

    fetch_threads: int = FETCH_THREADS
    bytes_in_memory: int = MEMORY_MB << 20
    """Of images not yet scored, encoded and decoded together, and of heat maps not yet written."""
    object_bytes: int = 256 << 20
    """A larger object is not read; the most that a DICOM file may have (`frame`)."""
    row_seconds: float = ROW_SECONDS
    """For decoding one image."""
    rows_given_up: int = 16
    """How many images may exceed that and be at it still; with more of them the run ends."""
    unwritten_seconds: float = 60.0
    """How long a row may wait to be written: a shard under way is written with the rows so far."""


assert Limits().fetch_threads <= s3_client.MAX_THREADS


class Fetched(NamedTuple):
    """An image whose bytes are there; it is being decoded."""

    etag: str
    key: str
    """Of the pixels and what is asked of them: names heat maps."""
    milliseconds: float
    task: Task[Any]

    @property
    def times(self) -> results.Row:
        """What the row's stages took so far, as its columns."""
        return {"fetch_ms": self.milliseconds, "preprocess_ms": self.task.milliseconds}


class Ready(NamedTuple):
    """A row that waits for the network."""

    number: int
    fetched: Fetched
    prepared: Any
    size: int
    """Its bytes."""


class Fetching:
    """The threads that fetch and decode, and the bytes that they may use; shared by all shards."""

    def __init__(self, job: Job, limits: Limits) -> None:
        self.job = job
        self.limits = limits
        self.budget = Budget(limits.bytes_in_memory)
        self._decoders = Decoders(
            job.archive.threads,
            limit_s=limits.row_seconds,
            max_given_up=limits.rows_given_up,
            stop=job.stop,
        )
        self._threads = ThreadPoolExecutor(limits.fetch_threads, "fetch")
        self._submitting = threading.Lock()

    def close(self) -> None:
        """End the threads; what is not begun is cancelled."""
        self._threads.shutdown(cancel_futures=True)
        self._decoders.close()

    def each(self, work: Any, items: Sequence[Any]) -> Iterator[Any]:
        """Do `work` for each item on the fetch threads; the results in order."""
        return self._threads.map(work, items)

    def begin(self, request: Request) -> Future[Fetched | results.Row]:
        """Have an image fetched, and then decoded; a row is the failure of its fetch."""
        with self._submitting:  # threads must begin with tickets in their order
            return self._threads.submit(self._fetch, request, self.budget.ticket())

    def _fetch(self, request: Request, ticket: int) -> Fetched | results.Row:
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
            found = objects.read(
                request.image_uri,
                if_match=request.etag,
                limit=self.limits.object_bytes,
                admit=admit,
            )
        except (UserError, CancelledError):
            raise
        except Exception as error:  # of any kind: one object must not end a run
            self.budget.add(-sum(granted))
            kind = type(error).__name__  # its text may hold anything
            row = (
                results.failed(error.code, "fetch", str(error))
                if isinstance(error, StorageError)
                else results.failed("fetch_failed", "fetch", f"reading the object raised {kind}")
            )
            return {**row, "fetch_ms": self.job.spent("fetch", start, waited)}
        finally:
            admit(0)  # where there was nothing to read: the next one's turn
        milliseconds = self.job.spent("fetch", start, waited)
        self.budget.add(len(found.data) - sum(granted))  # what was stored by gzip has grown
        etag = found.etag
        row_in: dict[str, object] = {"image": found.data, **request.fields}
        key = ""
        if self.job.explain is not None:
            row_in["explain"] = self.job.explain
            fields = (f"{name}={text}" for name, text in request.fields.items())
            s3 = objects.is_s3(request.image_uri)  # a file's etag is its digest
            digest = hashlib.sha256(found.data).hexdigest() if s3 else etag.removeprefix("sha256:")
            key = self.job.key(digest, *fields)
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

        def settled(prepared: Any) -> None:  # also if it hangs: the others need the memory
            self.budget.add((0 if prepared is None else waiting) - size)

        return Fetched(etag, key, milliseconds, self._decoders.submit(decode, settled))

    def prepared(self, number: int, fetched: Fetched | results.Row) -> Ready | results.Row:
        """Wait for what was fetched to be decoded; a row is a failure. Raises what ends the run."""
        if not isinstance(fetched, Fetched):
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
                return Ready(number, fetched, prepared, self.job.archive.nbytes(prepared))
            row = failure(prepared[1])
        finally:
            self.job.spend("preprocess", fetched.task.milliseconds / 1000)
        return {**row, **fetched.times, "image_etag": fetched.etag}

    def given_up(
        self, fetching: Iterable[tuple[int, Future[Fetched | results.Row]]]
    ) -> Iterator[tuple[int, results.Row]]:
        """Yield those of the rows that were not decoded in time, each with its failure."""
        for number, future in fetching:
            if not future.done() or future.cancelled() or future.exception() is not None:
                continue
            fetched = future.result()
            if isinstance(fetched, Fetched) and fetched.task.given_up:
                row = self.prepared(number, fetched)
                assert not isinstance(row, Ready)
                yield number, row

    def is_there(self, future: Future[Fetched | results.Row]) -> bool:
        """Wait a while for a row to be fetched and decoded. Raises what ends the run."""
        if self.job.stop.is_set():
            raise CancelledError
        if not future.done():  # or cancelled, which `wait` alone does not show
            wait([future], 0.2)
            return False
        fetched = future.result()
        return not isinstance(fetched, Fetched) or fetched.task.wait()


def failure(body: Mapping[str, Any]) -> results.Row:
    """Make the row of a failure that the archive reports."""
    return results.failed(body["code"], body["stage"], body["message"])
