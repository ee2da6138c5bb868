"""A shard: a slice of the manifest that is fetched, scored and written by one function.

Its part appears in one atomic step, under a name that holds the digest of all that went into it:
shards may run in any order, twice, or elsewhere, and give the same files.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from batch import results, storage
from batch.manifest import Manifest, Request, digest
from batch.storage_errors import StorageError
from sonode_console import UserError

_log = logging.getLogger(__name__)


class Archive(Protocol):
    """What scoring needs of an archive; `archives.loader.LoadedArchive` is one."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def engine(self) -> str: ...  # noqa: D102
    @property
    def heads(self) -> Mapping[str, Sequence[str]]: ...  # noqa: D102
    @property
    def methods(self) -> Sequence[str]: ...  # noqa: D102

    def score(self, rows: Sequence[dict[str, object]]) -> Sequence[tuple[int, dict[str, Any]]]:
        """Give (status, body) for each row, in order; status 200 is success."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all shards of a run share."""

    archive: Archive
    out: str
    explain: str | None
    batch_size: int
    seconds: dict[str, float] = field(
        default_factory=lambda: {"fetch": 0.0, "score": 0.0, "write": 0.0}
    )
    """Wall-clock time that scoring waited for each stage."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time of the block to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def key(self, *inputs: str) -> str:
        """Derive a name from `inputs` and from what this job does to them: 32 hex digits."""
        parameters = [self.archive.sha256, self.archive.engine, self.explain or ""]
        return hashlib.sha256("\n".join([*inputs, *parameters]).encode()).hexdigest()[:32]

    def write(self, name: str, data: bytes) -> str:
        """Write an object of the results and give its URI. Raises UserError where that fails."""
        uri = storage.join(self.out, name)
        try:
            storage.write(uri, data)
        except StorageError as error:
            raise UserError(f"results cannot be written to {self.out}: {error}") from None
        return uri


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Rows `start` to `start + count` of a manifest (fewer at its end)."""

    manifest: Manifest
    index: int
    start: int
    count: int

    @property
    def table(self) -> pa.Table:
        """The manifest rows of this shard."""
        return self.manifest.table.slice(self.start, self.count)

    def part(self, job: Job) -> str:
        """Name the file of this shard's results."""
        # With the folder, from which relative image_uris are taken.
        key = job.key(digest(self.table), self.manifest.folder)
        return f"{results.PARTS}/part-{self.index:05d}-{key}.parquet"


class _Image(NamedTuple):
    row: int
    request: Request
    object: storage.Object


def score_shard(shard: Shard, job: Job, pool: Executor) -> Iterator[tuple[str, str | None]]:
    """Score a shard and write its part; yield (status, code) of each row once it is known.

    The order of what is yielded is not that of the rows. The part stands when the iterator ends.
    """
    requests = shard.manifest.requests(shard.start, shard.count)
    rows: list[results.Row] = [{} for _ in requests]
    batch: list[_Image] = []
    fetched = _fetch_ahead(requests, pool, ahead=2 * job.batch_size)
    for index, request in enumerate(requests):
        with job.timed("fetch"):
            found = next(fetched)
        if isinstance(found, StorageError):
            rows[index] = results.failed(found.code, "fetch", str(found))
            yield results.FAILED, found.code
        else:
            batch.append(_Image(index, request, found))
        if batch and (len(batch) == job.batch_size or index == len(requests) - 1):
            for image, row in zip(batch, _score_batch(batch, job, pool), strict=True):
                rows[image.row] = row
                yield row["status"], row.get("code")
            batch = []
    columns = results.fields(job.archive.heads, with_heatmaps=job.explain is not None)
    with job.timed("write"):
        sink = io.BytesIO()
        pq.write_table(results.table(shard.table, rows, columns), sink)
        job.write(shard.part(job), sink.getvalue())


def _fetch_ahead(
    requests: Sequence[Request], pool: Executor, *, ahead: int
) -> Iterator[storage.Object | StorageError]:
    """Yield each request's object, or why there is none, in order, holding at most `ahead`."""
    running: deque[Future[storage.Object | StorageError]] = deque()
    try:
        for request in requests:
            running.append(pool.submit(_fetch, request))
            if len(running) == ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:  # an error or Ctrl-C: what has not begun need not be fetched
        for future in running:
            future.cancel()


def _fetch(request: Request) -> storage.Object | StorageError:
    try:
        return storage.read(request.image_uri, if_match=request.etag)
    except StorageError as error:
        return error


def _score_batch(batch: Sequence[_Image], job: Job, pool: Executor) -> list[results.Row]:
    inputs = [_row(image, job) for image in batch]
    with job.timed("score"):
        outcomes = _score(inputs, job.archive)
    with job.timed("write"):
        return list(pool.map(lambda image, outcome: _result(image, outcome, job), batch, outcomes))


def _row(image: _Image, job: Job) -> dict[str, object]:
    """Make the row that TorchServe would make of a multipart request for this image."""
    row: dict[str, object] = {"image": image.object.data, **image.request.fields}
    if job.explain is not None:
        row["explain"] = job.explain
    return row


def _score(
    rows: Sequence[dict[str, object]], archive: Archive
) -> Sequence[tuple[int, dict[str, Any]]]:
    """Score rows together; where the archive raises, one by one, so that only the culprit fails."""
    try:
        outcomes = archive.score(rows)
        if len(outcomes) != len(rows):
            raise ValueError("not one outcome per row")
        return outcomes
    except Exception as error:  # of any kind: the code is the archive's
        kind = type(error).__name__  # its text may hold anything
        if len(rows) == 1:
            body = {"code": "inference_failed", "stage": "inference"}
            return [(500, {**body, "message": f"the archive's service raised {kind}"})]
        _log.warning("a batch of %d images raised %s: scoring them one by one", len(rows), kind)
        return [_score([row], archive)[0] for row in rows]


def _result(image: _Image, outcome: tuple[int, Mapping[str, Any]], job: Job) -> results.Row:
    status, body = outcome
    etag = image.object.etag
    if status != 200:
        return results.failed(body["code"], body["stage"], body["message"], etag=etag)
    uris = {} if job.explain is None else _write_heatmaps(image, body["heatmaps"], job)
    return results.scored(body, etag=etag, heatmap_uris=uris)


def _write_heatmaps(
    image: _Image, heatmaps: Mapping[str, Mapping[str, Any]], job: Job
) -> dict[str, str]:
    """Write a PNG per head, named by what it was made from; give head -> URI."""
    pixels = hashlib.sha256(image.object.data).hexdigest()
    key = job.key(pixels, *(f"{name}={text}" for name, text in image.request.fields.items()))
    return {
        head: job.write(f"heatmaps/{key}-{head}.png", heatmap["png"])
        for head, heatmap in heatmaps.items()
    }
