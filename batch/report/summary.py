"""run.json: what the results of a manifest hold, counted from the parts themselves.

It is written last, by every run that comes to its end, from what is there by then. The run that
writes it read the previous one before it counted: if another run has written meanwhile it counts
again, so that the last run.json knows of every part that was improved before it.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt

from batch import layout
from batch.manifest.column_types import UNITS
from batch.report import drift, units
from batch.report import page as report
from batch.report.drift import BINS
from batch.report.run_summary import RunSummary
from batch.results import run_registry
from batch.results import schema as results
from batch.scoring.job import Job
from batch.scoring.parts import read_columns
from batch.storage import objects
from batch.storage.errors import ObjectMissing, StorageError

_log = logging.getLogger(__name__)

_PACKAGES = ("sonode", "torch", "openvino", "pillow", "pydicom", "numpy", "pyarrow", "boto3")


class _RunBefore(BaseModel):
    """What is used of a previous run.json."""

    format: Literal[1] = 1  # the first ones did not say so
    date: str
    scores: dict[str, Annotated[list[NonNegativeInt], Field(min_length=BINS, max_length=BINS)]]


def write(
    job: Job, parts: Sequence[str], run: dict[str, Any], rows: int, columns: Collection[str]
) -> RunSummary:
    """Count what the parts hold, write units and report, and then run.json; `columns` are the
    manifest's.

    Raises UserError where they cannot be written.
    """
    uri = objects.join(job.out, layout.run_record(job.partition))
    while True:
        with job.writing():
            etag = _etag(uri)
            summary = _counted(job, parts, run, rows, columns)
            # Before run.json, which says that all is there; of two runs, the one that writes last
            # has counted last.
            html = report.render(summary, job.archive.score_reference)
            job.write(layout.report(job.partition), html.encode())
            if objects.update(uri, run_registry.as_json(asdict(summary)), etag):
                return summary  # else another run ended meanwhile


def count(part_uri: str) -> Counter[str]:
    """How many rows of a part have each status, and how many are `not_reached`.

    Raises StorageError, and UserError for what is not a part.
    """
    found = read_columns(part_uri, ["status", "code"])
    codes = found["code"].to_pylist()
    counts = Counter(found["status"].to_pylist())
    return counts + Counter({results.NOT_REACHED: codes.count(results.NOT_REACHED)})


def _counted(
    job: Job, parts: Sequence[str], run: dict[str, Any], rows: int, columns: Collection[str]
) -> RunSummary:
    by_status = Counter({results.OK: 0, results.FAILED: 0})
    by_code: Counter[str] = Counter()
    scores = {head: [0] * drift.BINS for head in job.archive.heads}
    names = ["status", "code", *(f"{head}_probability" for head in scores)]
    names += units.columns_of(columns, job.archive.heads)
    kinds = [units.Unit(it, columns, job.archive.heads) for it in UNITS if it in columns]
    for part in sorted(parts):  # in the manifest's order, whatever came first
        found = read_columns(objects.join(job.out, part), names)
        for kind in kinds:
            kind.add(found)
        by_status.update(found["status"].to_pylist())
        by_code.update(code for code in found["code"].to_pylist() if code is not None)
        for head, counts in scores.items():
            probabilities = found[f"{head}_probability"].drop_null().to_pylist()
            scores[head] = [
                x + y for x, y in zip(counts, drift.histogram(probabilities), strict=True)
            ]
    assert sum(by_status.values()) == rows  # every manifest row exactly once
    return RunSummary(
        rows=rows,
        by_status=dict(by_status),
        by_code=dict(sorted(by_code.items())),
        scores=scores,
        given=dict(job.archive.given),
        drift=_drift(job, scores),
        parts=len(parts),
        dataset=job.partition,
        versions=_versions(),
        units={kind.unit: _write_units(job, kind) for kind in kinds},
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **run,
    )


def _write_units(job: Job, kind: units.Unit) -> dict[str, Any]:
    table, name = kind.table(), layout.units(job.partition, kind.unit)
    job.write(name, units.encoded(table, job.archive.given))
    described = units.described(kind, table, name)
    if alike := described["units_spelt_alike"]:
        _log.warning(
            "%s: %d of %d differ from another by spelling alone (case, blanks, leading zeros, "
            "Unicode's form), and count as others: one id, one spelling in the manifest",
            *(kind.unit, alike, table.num_rows),
        )
    return described


def _drift(job: Job, scores: Mapping[str, Sequence[int]]) -> dict[str, dict[str, dict[str, float]]]:
    references = {"training": job.archive.score_reference, **_run_before(job)}
    found = {}
    for name, reference in references.items():
        heads = {
            head: drift.compared(reference[head], counts)
            for head, counts in scores.items()
            if sum(counts) and sum(reference.get(head, ()))
        }
        if heads:
            found[name] = heads
    return found


def _run_before(job: Job) -> dict[str, Mapping[str, Sequence[int]]]:
    """The scores of the same model's last run of an earlier date, if there is one."""
    here = f"/{layout.run_record(job.partition)}"
    of_model = here[here.index("/model=") :]
    runs = [
        uri
        for uri in objects.list_files(objects.join(job.out, layout.RUNS), deep=True)
        if uri.endswith(of_model) and uri[-len(here) :] < here
    ]
    if not runs:
        return {}
    try:
        record = _RunBefore.model_validate_json(objects.read(max(runs)).data)
    except (StorageError, ValueError) as error:
        why = str(error) if isinstance(error, StorageError) else "not a file that a run wrote"
        _log.warning("%s: %s; scores are not compared with that run's", max(runs), why)
        return {}
    return {f"run of {record.date}": record.scores}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):  # OpenVINO is an extra
            found[name] = importlib.metadata.version(name)
    return found


def _etag(uri: str) -> str | None:
    try:
        return objects.etag_of(uri)
    except ObjectMissing:
        return None
