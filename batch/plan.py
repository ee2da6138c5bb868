"""What a run would do (`sonode score --dry-run`); nothing is written."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pyarrow as pa

from batch import prepare
from batch.executors.local import Executor, LocalExecutor
from batch.manifest.checks import count_none_found
from batch.manifest.read import requests
from batch.report import summary
from batch.results import run_registry
from batch.results import schema as results
from batch.scoring.job import Archive
from batch.storage import objects

_REHEARSED = 48  # images that a plan is estimated from


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

    Raises UserError as `run.score` does.
    """
    with ExitStack() as stack:
        manifest, job, intent = prepare.check(stack, manifest_uri, out_uri, archive, explain, date)
        job = replace(job, batch_size=batch_size, retry_failed=retry_failed, rehearsal=True)
        previous = None if since is None else prepare.previous_results(since, job)
        prepare.max_failed(max_failures, manifest.rows)
        there = run_registry.register(job.out, job.date, intent, shard_rows, "", dry=True)
        with job.writing():
            parts = set(objects.list_files(objects.join(job.out, job.partition)))
        sample: list[pa.Table] = []
        counts: Counter[str] = Counter()
        shards = done = known = none_found = 0
        for shard in prepare.shards_of(manifest, there["shard_rows"]):
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
