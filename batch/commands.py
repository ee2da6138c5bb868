"""The commands of the batch; heavy imports stay inside the functions."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from batch import terminal
from batch.dicom import commands as dicom_commands
from batch.night.command import night
from sonode import console
from sonode.console import UserError, say
from sonode.defaults import FETCH_THREADS, MEMORY_MB, ROW_SECONDS, SHARD_ROWS

if TYPE_CHECKING:
    from batch.executors.local import Executor
    from batch.scoring.fetching import Limits
    from batch.scoring.job import Archive

    _Cluster = tuple[str | None, int | None, int | None, float | None]

EXECUTORS = ("local", "ray")


def mount(app: typer.Typer) -> None:
    """Add the commands of the batch to `app`."""
    app.command(rich_help_panel="Batch")(score)
    dicom_commands.dicom.command()(night)
    app.add_typer(dicom_commands.dicom, name="dicom", rich_help_panel="Batch")


def score(
    manifest: str = typer.Argument(help="A Parquet file or a folder of them; path or s3:// URI."),
    out: str = typer.Argument(help="Folder for the results; path or s3:// URI."),
    *,
    archive: list[str] = typer.Option(
        help="A .mar archive; path or s3:// URI. Repeatable: one process for each."
    ),
    explain: str = typer.Option(
        "", help="Make a heat map for each head by this method, e.g. gradcam."
    ),
    dicom: bool = typer.Option(
        False,
        "--dicom",
        help="Make DICOM objects of each scored DICOM image: SR, Secondary Capture and "
        "presentation state, in OUT/_dicom. Needs the extra `dicom`.",
    ),
    date: str | None = typer.Option(
        None,
        help="Partition of the results, YYYY-MM-DD. Default: the manifest's own, or today (UTC).",
    ),
    since: str | None = typer.Option(
        None, help="Previous results; scores of unchanged images are reused."
    ),
    retry_failed: bool = typer.Option(
        True,
        "--retry-failed/--keep-failed",
        help="Whether to score rows again that failed in a previous run.",
    ),
    max_failures: str | None = typer.Option(
        None, help="Stop if more rows fail: a number, or a percentage such as 5%."
    ),
    on_finish: str | None = typer.Option(
        None, help="Send the outcome as JSON to a command's standard input or, by POST, to a URL."
    ),
    single_writer: bool = typer.Option(
        False,
        "--single-writer",
        help="Nothing else writes to OUT: accept a store without conditional writes.",
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Check everything and print the plan; score nothing."
    ),
    executor: str = typer.Option(
        "local", help="Where the images are scored: local (this machine), or ray (a cluster)."
    ),
    address: str | None = typer.Option(
        None, help="Ray cluster, host:port. Default: RAY_ADDRESS, or a new one on this machine."
    ),
    workers: int | None = typer.Option(
        None, min=1, help="With ray: number of worker processes. Default: as many as fit."
    ),
    worker_cpus: int | None = typer.Option(
        None,
        min=1,
        help="With ray: CPUs per worker. Default: those of its node, divided by its GPUs.",
    ),
    worker_gpus: float | None = typer.Option(
        None,
        min=0,
        help="With ray: GPUs per worker; 0.5: two share one. Default: 1 if there are any.",
    ),
    engine: str | None = typer.Option(
        None,
        help="Inference engine, e.g. eager. Default: as `sonode serve` chooses.",
    ),
    batch_size: int | None = typer.Option(
        None, min=1, help="Images per forward pass. Default: the engine's own."
    ),
    shard_rows: int | None = typer.Option(
        None,
        min=1,
        help=f"Rows per result file, in memory until it is written. Default: {SHARD_ROWS}.",
    ),
    fetch_threads: int = typer.Option(
        FETCH_THREADS, min=1, max=32, help="Objects fetched concurrently."
    ),
    memory_mb: int = typer.Option(
        MEMORY_MB, min=1, help="Megabytes of images in memory; a larger image is held alone."
    ),
    row_timeout: float = typer.Option(
        ROW_SECONDS, min=0.1, help="Seconds to decode one image; after that its row fails."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as one JSON line."),
) -> None:
    """Score every image of a manifest with an archive, into Parquet.

    Re-run the same command to resume a run and to retry failed rows.
    """
    from batch.storage import uris

    manifest, out, *archive = map(uris.argument, (manifest, out, *archive))
    since = None if since is None else uris.argument(since)
    if executor not in EXECUTORS:
        raise UserError(f"--executor {executor}: no such executor; give {' or '.join(EXECUTORS)}")
    if engine in EXECUTORS:
        raise UserError(f"--engine {engine}: not an inference engine; give --executor {engine}")
    cluster = address, workers, worker_cpus, worker_gpus
    names = ("--address", "--workers", "--worker-cpus", "--worker-gpus")
    given = [name for name, it in zip(names, cluster, strict=True) if it is not None]
    if executor == "local" and given:
        raise UserError(f"{given[0]}: needs --executor ray; give both")
    if dicom and executor == "ray":
        raise UserError(
            "--dicom: not with --executor ray; run the same command again without ray: what is "
            "scored stays, and the objects are added"
        )
    if dicom:
        import highdicom  # noqa: F401 - is missed before anything is scored

    from batch.report import notify

    if on_finish is not None:
        notify.check(on_finish)
    if len(archive) > 1:
        from batch import several_archives

        raise typer.Exit(several_archives.run(archive, out, None if dry_run else on_finish))
    from batch.scoring.fetching import Limits

    run = partial(
        _run_one,
        *(manifest, out, archive[0], engine),
        dry_run=dry_run,
        single_writer=single_writer,
        as_json=as_json,
        dicom=dicom,
        cluster=None if executor == "local" else cluster,
        explain=explain or None,
        date=date,
        since=since,
        retry_failed=retry_failed,
        max_failures=max_failures,
        batch_size=batch_size,
        shard_rows=shard_rows,
        limits=Limits(
            fetch_threads=fetch_threads, bytes_in_memory=memory_mb << 20, row_seconds=row_timeout
        ),
    )
    if on_finish is None or dry_run:
        raise typer.Exit(run()[0])
    try:
        code, outcome, facts = run()
    except BaseException as error:  # also a fault of sonode, or Ctrl-C
        why = str(error) if isinstance(error, UserError) else type(error).__name__
        notify.report_end(on_finish, "error", {"out": out, "archive": archive[0], "message": why})
        raise
    notify.report_end(on_finish, outcome, {"out": out, "archive": archive[0], **facts})
    raise typer.Exit(code)


def _run_one(
    manifest: str,
    out: str,
    archive: str,
    engine: str | None,
    *,
    dry_run: bool,
    single_writer: bool,
    as_json: bool,
    dicom: bool,
    cluster: _Cluster | None,
    limits: Limits,
    **options: Any,
) -> tuple[int, str, dict[str, Any]]:
    """Score with one archive; give exit code, outcome and facts for `--on-finish`."""
    from batch import plan, run

    settings = {"engine": engine} if engine else {}
    with _started(archive, settings, cluster) as (loaded, executor):
        given = (manifest, out, loaded)
        if dicom:
            from batch.dicom.making import beside_results

            beside_results.check_heads(loaded.heads)
        if dry_run:
            planned = plan.plan(*given, executor=executor, **options)
        else:
            try:
                summary = run.score(
                    *given,
                    executor=executor,
                    single_writer=single_writer,
                    limits=limits,
                    progress=console.progress,
                    **options,
                )
            except run.Stopped as stopped:
                print(stopped, file=sys.stderr)
                return 1, "stopped", {"message": str(stopped)}
            if dicom:
                written = beside_results.write(
                    out,
                    summary.dataset,
                    loaded,
                    options["explain"],
                    console.progress,
                    total=summary.rows,
                )
    if dry_run:
        terminal.show_plan(planned, as_json)
        return 0, "done", {}
    facts = {"out": out, **dataclasses.asdict(summary)}
    failed = summary.by_status["failed"]
    if dicom:
        facts["dicom"] = dataclasses.asdict(written)
        failed += written.by_status[beside_results.FAILED]
    if as_json:
        say(json.dumps(facts))
    else:
        terminal.show_summary(summary, out)
        if dicom:
            terminal.show_dicom(written)
    if not summary.rows:
        # No failure: a query that finds nothing new is an ordinary night.
        print("the manifest has no row, so nothing was scored", file=sys.stderr)
        return 0, "no_rows", facts
    return (1, "failed_rows", facts) if failed else (0, "done", facts)


@contextmanager
def _started(
    archive: str,
    settings: Mapping[str, object],
    cluster: _Cluster | None,
) -> Iterator[tuple[Archive, Executor]]:
    """Load the archive where it is to score: here, or on the workers of a Ray cluster."""
    if cluster is None:
        from batch.executors.local import LocalExecutor
        from batch.scoring.archive_file import open_archive

        with open_archive(archive, settings) as loaded:
            yield loaded, LocalExecutor()
        return
    from batch.executors import ray_executor
    from batch.storage import objects

    address, workers, cpus, gpus = cluster
    with ray_executor.connected(
        address, objects.absolute(archive), settings, workers=workers, cpus=cpus, gpus=gpus
    ) as executor:
        yield executor.archive, executor
