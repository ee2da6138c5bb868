"""What a run is given, checked before anything is scored: manifest, archive, OUT and options."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from batch import layout
from batch.manifest.read import Manifest, open_manifest
from batch.results import carried_columns, run_registry
from batch.results import schema as results
from batch.results.previous_results import PreviousResults
from batch.scoring.job import Archive, Job
from batch.scoring.shards import Shard
from batch.storage import checks as storage_checks
from batch.storage import objects
from sonode.console import UserError

if TYPE_CHECKING:
    from archives.packing.loader import Description


def check(
    stack: ExitStack,
    manifest_uri: str,
    out_uri: str,
    archive: Archive,
    explain: str | None,
    date: str | None,
) -> tuple[Manifest, Job, dict[str, Any]]:
    """Check what was given; return the manifest, the job, and what makes runs the same.

    Raises UserError as `run.score` does.
    """
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


def previous_results(since: str, job: Job) -> PreviousResults:
    """The results of `--since`; OUT itself may be given, and hold none yet."""
    itself = objects.absolute(since.rstrip("/")) == job.out.rstrip("/")
    archive = job.archive
    return PreviousResults(since, archive.sha256, job.explain, job.columns, may_be_empty=itself)


def max_failed(max_failures: str | None, rows: int) -> float:
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


def shards_of(manifest: Manifest, rows: int) -> Iterator[Shard]:
    """The shards of a manifest, of so many rows each."""
    # An empty manifest has one empty shard, so that results always have their columns.
    for index, table in enumerate(manifest.tables(rows)):
        yield Shard(index=index, table=table)
