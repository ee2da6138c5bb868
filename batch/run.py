"""A run: manifest -> shards -> scored Parquet parts, then run.json, which marks a complete run.

A run can end anywhere; the same command resumes it: it joins the partition (`run_registry`) and
does what is missing or has failed (`parts`). Two at once do the same work twice and give one
result.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime

from batch import prepare
from batch.executors.local import Executor, LocalExecutor
from batch.report import summary
from batch.report.run_summary import RunSummary
from batch.results import carried_columns, run_registry
from batch.scoring.fetching import Limits
from batch.scoring.job import Archive
from batch.scoring.shards import Receipt
from batch.storage import checks as storage_checks


class Stopped(Exception):  # noqa: N818 - reads as what it is
    """More rows have failed than the user allows; the results so far are written."""

    def __init__(self, allowed: str | None, failed: Mapping[str, int]) -> None:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(failed.items()))
        super().__init__(
            f"stopped: more rows failed than --max-failures {allowed} ({codes}); the results "
            "so far are written; re-run the same command to resume"
        )


Progress = Callable[..., Iterator[str | None]]
"""As `console.progress`: (items, *, total, what) -> the same items."""


def score(
    manifest_uri: str,
    out_uri: str,
    archive: Archive,
    *,
    explain: str | None,
    batch_size: int | None = None,
    progress: Progress,
    shard_rows: int | None = None,
    date: str | None = None,
    since: str | None = None,
    retry_failed: bool = True,
    max_failures: str | None = None,
    single_writer: bool = False,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    executor: Executor = LocalExecutor(),  # noqa: B008 - has no state
) -> RunSummary:
    """Score what is not yet scored of a manifest into `out_uri`: one result row for each of its.

    `explain`: one of the archive's methods, for a heat map per head. `date`: the partition, today
    in UTC unless the manifest has one there. `shard_rows`: of each part, as the first run of a
    place says; it is the most that each of two shards loses if the run is killed, together with
    `Limits.unwritten_seconds`. `since`: previous results to reuse rows from.
    `max_failures`: a count of rows, or a share of the manifest's as in "5%"; Stopped is raised once
    more have failed, those of previous runs that are not tried again included. `single_writer`: as
    of `storage_checks.check_store`. `executor`: where the shards are scored; the local one
    needs an `archive` that is loaded, others a description of it.

    Raises UserError for an unknown method, for a faulty manifest, for storage that cannot be used,
    and if another run owns the partition: all before anything is scored. A row that fails is a
    row of the results.
    """
    with ExitStack() as stack:
        manifest, job, intent = prepare.check(stack, manifest_uri, out_uri, archive, explain, date)
        job = replace(job, batch_size=batch_size, retry_failed=retry_failed)
        if since is not None:
            job = replace(job, previous=prepare.previous_results(since, job))
        max_failed = prepare.max_failed(max_failures, manifest.rows)
        storage_checks.check_store(job.out, single_writer=single_writer)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        there = run_registry.register(job.out, job.date, intent, shard_rows, started)
        manifest = carried_columns.agreed(manifest, job.out, dry=False)
        begin = time.perf_counter()
        receipts: list[Receipt] = []
        failed: Counter[str] = Counter()
        # Closed at once if the run stops early, so that no work is left running.
        shards = prepare.shards_of(manifest, there["shard_rows"])
        with closing(executor.run(shards, job, limits, receipts)) as rows:
            for code in progress(rows, total=manifest.rows, what="images"):
                if code is not None:
                    failed[code] += 1
                    if failed.total() > max_failed:
                        raise Stopped(max_failures, failed)
        elapsed = time.perf_counter() - begin
        scored = sum(receipt.scored for receipt in receipts)
        return summary.write(
            job,
            [receipt.part for receipt in receipts],
            {
                **intent,
                "date": job.date,
                "shard_rows": there["shard_rows"],
                "started": started,
                "engine": archive.engine,
                "batch_size": batch_size,
                "scored": scored,
                "carried": sum(receipt.carried for receipt in receipts),
                "images_per_second": scored / elapsed,
                "seconds": job.seconds,
            },
            manifest.rows,
            manifest.schema.names,
        )
