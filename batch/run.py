"""A run: manifest -> shards -> scored Parquet parts, then run.json, which marks a complete run.

A run can end anywhere; the same command resumes it: it joins the partition (`run_registry`) and
does what is missing or has failed (`parts`). Two at once do the same
work twice and give one result.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batch import layout
from batch.executors.local import Executor, LocalExecutor
from batch.manifest.checks import count_none_found
from batch.manifest.read import Manifest, open_manifest, requests
from batch.report import summary
from batch.report.run_summary import RunSummary
from batch.results import carried_columns, run_registry
from batch.results import schema as results
from batch.results.previous_results import PreviousResults
from batch.scoring.fetching import Limits
from batch.scoring.job import Archive, Job
from batch.scoring.shards import Receipt, Shard
from batch.storage import checks as storage_checks
from batch.storage import objects
from sonode.console import UserError

if TYPE_CHECKING:
    from archives.packing.loader import Description

_REHEARSED = 48  # images that a plan is estimated from


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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do."""

    rows: int
    shards: int
    date: str
    model: dict[str, str]
    shards_done: int
    rows_ok: int
    """Scored already."""
    rows_failed: int
    """Failed in a previous run."""
    rows_to_score: int
    rows_known: int
    """How many of them `--since` has scores for, in shards that are not begun; they are reused if
    the object has not changed."""
    estimated_seconds: float | None
    """From a few images, scored and thrown away; None where nothing is to be scored."""


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
        manifest, job, intent = _prepared(stack, manifest_uri, out_uri, archive, explain, date)
        job = replace(job, batch_size=batch_size, retry_failed=retry_failed)
        if since is not None:
            job = replace(job, previous=_previous(since, job))
        max_failed = _max_failed(max_failures, manifest.rows)
        storage_checks.check_store(job.out, single_writer=single_writer)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        there = run_registry.register(job.out, job.date, intent, shard_rows, started)
        manifest = carried_columns.agreed(manifest, job.out, dry=False)
        begin = time.perf_counter()
        receipts: list[Receipt] = []
        failed: Counter[str] = Counter()
        # Closed at once if the run stops early, so that no work is left running.
        shards = _shards(manifest, there["shard_rows"])
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


def plan(
    manifest_uri: str,
    out_uri: str,
    archive: Archive,
    *,
    explain: str | None,
    batch_size: int | None = None,
    shard_rows: int | None = None,
    date: str | None = None,
    since: str | None = None,
    retry_failed: bool = True,
    max_failures: str | None = None,
    executor: Executor = LocalExecutor(),  # noqa: B008 - has no state
) -> Plan:
    """Check all that `score` would and give what it would do, writing nothing.

    Raises UserError as `score` does.
    """
    with ExitStack() as stack:
        manifest, job, intent = _prepared(stack, manifest_uri, out_uri, archive, explain, date)
        job = replace(job, batch_size=batch_size, retry_failed=retry_failed, rehearsal=True)
        previous = None if since is None else _previous(since, job)
        _max_failed(max_failures, manifest.rows)
        there = run_registry.register(job.out, job.date, intent, shard_rows, "", dry=True)
        with job.writing():
            parts = set(objects.list_files(objects.join(job.out, job.partition)))
        sample: list[pa.Table] = []
        counts: Counter[str] = Counter()
        shards = done = known = none_found = 0
        for shard in _shards(manifest, there["shard_rows"]):
            shards += 1
            none_found += count_none_found(shard.table)
            uri = objects.join(job.out, shard.part(job))
            if uri in parts:
                found = summary.count(uri)
                done += not found[results.NOT_REACHED]
                counts += found
                if not found[results.FAILED if retry_failed else results.NOT_REACHED]:
                    continue
            elif previous is not None:
                known += sum(map(previous.knows, requests(shard.table, job.folder)))
            if not sample:
                sample.append(shard.table.slice(0, _REHEARSED))
        ok, failed = counts[results.OK], counts[results.FAILED] - counts[results.NOT_REACHED]
        to_score = manifest.rows - none_found - ok - (0 if retry_failed else failed)
        return Plan(
            rows=manifest.rows,
            shards=shards,
            date=job.date,
            model=intent["model"],
            shards_done=done,
            rows_ok=ok,
            rows_failed=failed,
            rows_to_score=to_score,
            rows_known=known,
            estimated_seconds=executor.rehearse(sample[0], job) * to_score if sample else None,
        )


def _prepared(
    stack: ExitStack,
    manifest_uri: str,
    out_uri: str,
    archive: Archive,
    explain: str | None,
    date: str | None,
) -> tuple[Manifest, Job, dict[str, Any]]:
    """Check what was given; return the manifest, the job, and what makes runs the same."""
    if explain is not None:
        check_explain(explain, archive)
    columns = results.fields(archive.heads, with_heatmaps=explain is not None)
    reserved = {*(column.name for column in columns), *layout.PARTITIONS}
    manifest = stack.enter_context(open_manifest(manifest_uri, reserved=reserved, out=out_uri))
    for bucket in manifest.buckets:
        storage_checks.check_bucket(bucket)
    out = objects.absolute(out_uri)  # heat maps are named by it in the results
    storage_checks.check_readable(out)
    manifest = carried_columns.agreed(manifest, out, dry=True)
    key = run_registry.manifest_key(manifest.sha256, manifest.folder)
    date = run_registry.date_of(out, key, archive.name, archive.version, date)
    job = Job(
        archive=archive, out=out, date=date, folder=manifest.folder, explain=explain, batch_size=1
    )
    model = {"name": archive.name, "version": archive.version, "sha256": archive.sha256}
    return manifest, job, {"model": model, "manifest_key": key, "explain": explain}


def _previous(since: str, job: Job) -> PreviousResults:
    """The results of `--since`; OUT itself may be given, and hold none yet."""
    itself = objects.absolute(since.rstrip("/")) == job.out.rstrip("/")
    archive = job.archive
    return PreviousResults(since, archive.sha256, job.explain, job.columns, may_be_empty=itself)


def _max_failed(max_failures: str | None, rows: int) -> float:
    """How many rows may fail. Raises UserError for what is neither a count nor a share."""
    if max_failures is None:
        return math.inf
    number = max_failures.removesuffix("%")
    try:
        value = float(number) if number != max_failures else int(number)
        if not 0 <= value < math.inf or (number != max_failures and value > 100):
            raise ValueError
    except ValueError:
        raise UserError(
            f"--max-failures {max_failures}: give a number of rows, or a percentage such as 5%"
        ) from None
    return value / 100 * rows if number != max_failures else value


def check_explain(explain: str, archive: Description) -> None:
    """Raise UserError unless the archive has the method and the heads of METHOD[:HEAD,HEAD]."""
    method, _, named = explain.partition(":")
    if method not in archive.methods:
        raise UserError(f"--explain {explain}: no such method; give {', '.join(archive.methods)}")
    if named and not {name.strip() for name in named.split(",")} <= set(archive.heads):
        raise UserError(f"--explain {explain}: no such head; give {', '.join(archive.heads)}")


def _shards(manifest: Manifest, rows: int) -> Iterator[Shard]:
    # An empty manifest has one empty shard, so that results always have their columns.
    for index, table in enumerate(manifest.tables(rows)):
        yield Shard(index=index, table=table)
