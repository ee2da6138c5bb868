"""A run: manifest -> shards -> scored Parquet parts, then run.json, the sign of a whole run."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from batch import manifest as manifests
from batch import results, storage
from batch.shards import Archive, Job, Shard, score_shard
from batch.storage_errors import StorageError
from sonode_console import UserError

FETCH_THREADS = 8
assert FETCH_THREADS <= storage.MAX_THREADS

Progress = Callable[..., Iterator[tuple[str, str | None]]]
"""As `sonode_console.progress`: (items, *, total, what) -> the same items."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What became of a run; run.json holds the same fields."""

    rows: int
    by_status: dict[str, int]
    by_code: dict[str, int]
    images_per_second: float
    """Rows over the wall-clock time from the first fetch to the last write."""
    seconds: dict[str, float]
    """Wall-clock time spent waiting for fetch, score and write; fetching goes on during scoring."""
    model: dict[str, str]
    manifest_sha256: str
    explain: str | None
    batch_size: int
    shard_rows: int
    parts: list[str]
    started: str
    """UTC, ISO 8601."""
    finished: str


def score(
    manifest_uri: str,
    out_uri: str,
    archive: Archive,
    *,
    explain: str | None,
    batch_size: int,
    shard_rows: int = 1024,
    progress: Progress,
) -> RunSummary:
    """Score every row of a manifest into `out_uri`: one result row each, in the same order.

    `explain`: one of the archive's methods, for a heat map per head. Raises UserError for an
    unknown method, for a faulty manifest, for storage that cannot be used, and where `out_uri`
    already holds results: all of it before anything is scored. A row that fails is a row of the
    results.
    """
    if explain is not None and explain.partition(":")[0] not in archive.methods:
        raise UserError(f"--explain {explain}: no such method; give {', '.join(archive.methods)}")
    named = explain.partition(":")[2] if explain else ""
    if named and not {name.strip() for name in named.split(",")} <= set(archive.heads):
        raise UserError(
            f"--explain {explain}: no such head; the archive has {', '.join(archive.heads)}"
        )
    started = _now()
    columns = results.fields(archive.heads, with_heatmaps=explain is not None)
    manifest = manifests.load(manifest_uri, reserved={column.name for column in columns})
    for bucket in manifest.buckets():
        storage.check_bucket(bucket)
    out = storage.absolute(out_uri)  # heat maps are named by it in the results
    job = Job(archive=archive, out=out, explain=explain, batch_size=batch_size)
    rows = manifest.table.num_rows
    # An empty manifest has one empty shard, so that results always have their columns.
    starts = range(0, max(rows, 1), shard_rows)
    shards = [
        Shard(manifest=manifest, index=index, start=start, count=shard_rows)
        for index, start in enumerate(starts)
    ]
    intent: dict[str, Any] = {
        "model": {
            "name": archive.name,
            "version": archive.version,
            "sha256": archive.sha256,
            "engine": archive.engine,
        },
        "manifest_sha256": manifests.digest(manifest.table),
        "explain": explain,
        "batch_size": batch_size,
        "shard_rows": shard_rows,
        "started": started,
    }
    _refuse_earlier_results(out_uri)
    # Tells what a run that broke off was about, and that this place can be written to.
    job.write("started.json", _json(intent))

    begin = time.perf_counter()
    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        finished_rows = (row for shard in shards for row in score_shard(shard, job, pool))
        counts = Counter(progress(finished_rows, total=rows, what="images"))
    elapsed = time.perf_counter() - begin

    by_status = {results.OK: 0, results.FAILED: 0}
    by_code: Counter[str] = Counter()
    for (status, code), count in counts.items():
        by_status[status] += count
        if code is not None:
            by_code[code] += count
    summary = RunSummary(
        rows=rows,
        by_status=by_status,
        by_code=dict(sorted(by_code.items())),
        images_per_second=rows / elapsed,
        seconds=job.seconds,
        parts=[shard.part(job) for shard in shards],
        finished=_now(),
        **intent,
    )
    job.write("run.json", _json(asdict(summary)))
    return summary


def _refuse_earlier_results(out_uri: str) -> None:
    try:
        found = storage.exists(storage.join(out_uri, "run.json")) or storage.list_files(
            storage.join(out_uri, results.PARTS)
        )
    except StorageError as error:
        raise UserError(f"results cannot be written to {out_uri}: {error}") from None
    if found:
        raise UserError(f"{out_uri} already holds results: name a new folder, or remove them")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
