"""What `sonode score` prints when it is done."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING

from batch import layout
from sonode.console import counted, say

if TYPE_CHECKING:
    from batch.dicom.making.beside_results import Written
    from batch.plan import Plan
    from batch.report.run_summary import RunSummary


def show_summary(summary: RunSummary, out: str) -> None:
    """Print what a run did, and how its results are read."""
    model = summary.model
    rows = counted(summary.rows, "row")
    say(f"{rows} through {model['name']} {model['version']} on {summary.engine}")
    for status, count in summary.by_status.items():
        say(f"  {status:<24} {count}")
    for code, count in summary.by_code.items():
        say(f"    {code:<22} {count}")
    took = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in summary.seconds.items())
    say(f"tried now: {summary.scored}, reused from previous results: {summary.carried}")
    if rest := summary.rows - summary.scored - summary.carried:
        say(f"not tried now: {rest} (done before, or without a RoI)")
    if summary.scored:
        say(f"{summary.images_per_second:.1f} images/s ({took})")
    say(f"results: {out} ({summary.dataset})")
    parts = f"{out.rstrip('/')}/{layout.ALL_PARTS}"
    say(
        f"to read all of them: pandas.read_parquet({out!r}), or "
        f"polars.read_parquet({parts!r}, hive_partitioning=True)"
    )


def show_dicom(written: Written) -> None:
    """Print how many DICOM objects were written, and why some were not."""
    say("DICOM objects, of images:")
    for status, count in written.by_status.items():
        say(f"  {status:<24} {count}")
    for code, count in written.by_code.items():
        say(f"    {code:<22} {count}")


def show_plan(plan: Plan, as_json: bool) -> None:
    """Print what `--dry-run` finds, for a person or as one JSON line."""
    if as_json:
        say(json.dumps(dataclasses.asdict(plan)))
        return
    rows, shards = counted(plan.rows, "row"), counted(plan.shards, "shard")
    say(f"{rows} in {shards}, date {plan.date}")
    say(f"  shards done   {plan.shards_done}")
    say(f"  rows done     {plan.rows_ok} scored, {plan.rows_failed} failed")
    say(f"  to score      {counted(plan.rows_to_score, 'row')}")
    if plan.rows_known:
        say(f"  of these      {plan.rows_known} have previous scores, reused if unchanged")
    if plan.estimated_seconds is not None:
        seconds = plan.estimated_seconds
        time = f"{math.ceil(seconds)} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        say(f"  estimated     {time}")
