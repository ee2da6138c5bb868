"""`sonode dicom night`: pull -> score -> push, with one report and one exit code.

A night has a date. Its manifest is written once, when all images are there: those that no other
night has. So a re-run of the same date goes on where it ended, and each image and box is scored
once. A night that was killed is ended by the next one, and one that was missed is asked for. The
push sends what is missing of all nights. Below the folder of the settings:

    images/                  what was pulled, and its ledgers
    images/night-DATE.parquet    the manifest of a night
    results/                 OUT of `sonode score --dicom`
    nights/DATE.json         the report of a night's last run
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from batch import layout
from batch.storage import uris
from sonode import console
from sonode.console import TRY_AGAIN, UserError
from sonode.settings_file import read_settings

if TYPE_CHECKING:
    import pyarrow as pa

_REMEDY = "correct the file; docs/batch.md has an example"
_NIGHT = re.compile(r"/night-(\d{4}-\d{2}-\d{2})\.parquet$")
_KEY = ("instance_uid", "frame", "roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max")


class Settings(BaseModel):
    """Of a night; an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pacs: str
    """Where studies come from, and results go: as `--from` of `sonode dicom pull`."""
    to: str | None = None
    """Another address for results. Only what has the images gets them."""
    plain: bool = False
    """Without TLS, as `--plain`."""
    title: str = "SONODE"
    """The AE title that sonode calls itself."""
    days: int = Field(default=2, ge=1, le=366)
    """How many days' studies are asked for: the night's date and those before. Those of nights that
    were missed since the last one are asked for, too."""
    modality: str = "US"
    boxes: str | None = None
    """As `--boxes` of `sonode dicom pull`."""
    connections: int = Field(default=2, ge=1, le=16)
    archive: str
    """As `--archive` of `sonode score`."""
    engine: str | None = None
    explain: str | None = None
    """The method of the heat maps; without it there are none."""
    folder: str
    """Where images, results and reports lie; path or s3:// URI."""

    @field_validator("boxes", "archive", "folder")
    @classmethod
    def _uri(cls, value: str | None) -> str | None:
        return value and uris.argument(value)


def read(path: Path) -> Settings:
    """Read a file of settings. Raises UserError for what is in it that is not understood."""
    return read_settings(path, Settings, "SETTINGS", _REMEDY)


def run(settings: Settings, day: date) -> dict[str, Any]:
    """Do what is missing of a night; return its report, which is written below the folder, too.

    Raises UserError, as pull, score and push do.
    """
    stages = _Stages()
    report: dict[str, Any] = {"date": day.isoformat()}
    code, why = _run(settings, day, stages, report)
    total = sum(it["seconds"] for it in stages.took.values()) or 1.0
    for it in stages.took.values():
        it["share"] = it["seconds"] / total
    report |= {"stages": stages.took, "exit_code": code, "why": why}
    _write_report(settings, day, report)
    return report


def _write_report(settings: Settings, day: date, report: dict[str, Any]) -> None:
    from batch.storage import objects
    from batch.storage.errors import StorageError

    try:
        objects.write(_report(settings, day), json.dumps(report, indent=1).encode())
    except StorageError as error:
        raise UserError(f"folder: {settings.folder}: {error}") from None


def _run(
    settings: Settings, day: date, stages: _Stages, report: dict[str, Any]
) -> tuple[int, str | None]:
    """Fill the report; give the exit code and its reason."""
    from batch.dicom import push as pushing
    from batch.storage import objects

    results = objects.join(settings.folder, "results")
    with stages.stage("pull"):
        manifest, pulled = _manifest(settings, day)
    report["pull"] = pulled
    if manifest is None:
        return TRY_AGAIN, f"the PACS does not answer as it should ({pulled['stopped']})"
    faults = []
    if pulled.get("refusals"):
        faults.append("the PACS refused to give images, which the next night asks for again")
    works = _cut_short(settings)
    if manifest.rows:
        works[day] = manifest.uri
    for each, uri in sorted(works.items()):
        scored = _score(settings, each, uri, results, stages)
        if each == day:
            report |= scored
        else:
            report.setdefault("earlier", {})[each.isoformat()] = scored
            _write_report(
                settings, each, {"date": each.isoformat(), "ended_by": day.isoformat()} | scored
            )
        if scored["score"]["by_status"]["failed"] or scored["dicom"]["by_status"]["failed"]:
            faults.append(f"images failed of the night of {each}")
    if not objects.list_files(objects.join(results, layout.DICOM), deep=True):
        return (1, ", ".join(faults)) if faults else (0, None)
    with stages.stage("push"):
        pushed = pushing.push_to(
            results,
            settings.to or settings.pacs,
            title=settings.title,
            plain=settings.plain,
            unknown_images=False,
            progress=console.progress,
        )
    report["push"] = dataclasses.asdict(pushed)
    if pushed.stopped:
        return TRY_AGAIN, f"the PACS does not answer as it should ({pushed.stopped})"
    faults += [
        f"{pushed.by_status[status]} objects are {status}"
        for status in (pushing.REFUSED, pushing.IMAGE_UNKNOWN)
        if pushed.by_status[status]
    ]
    return (1, ", ".join(faults)) if faults else (0, None)


@dataclasses.dataclass(frozen=True)
class _Manifest:
    uri: str
    rows: int


def _manifest(settings: Settings, day: date) -> tuple[_Manifest | None, dict[str, Any]]:
    """The night's manifest, None where the PACS stopped; and what was pulled for it now."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from batch.dicom.pulling import pull as pulling
    from batch.results.schema import parquet
    from batch.storage import objects
    from batch.storage.errors import StorageError

    images = objects.join(settings.folder, "images")
    uri = objects.join(images, f"night-{day}.parquet")
    try:
        nights = _nights(settings)
        if day in nights:
            return _Manifest(uri, _rows(uri)), _last_report(settings, day).get("pull", {})
        # The nights between the last one and this one did not come about.
        first = min(day, max((it for it in nights if it < day), default=day) + timedelta(days=1))
        since = first - timedelta(days=settings.days - 1)
        pulled = pulling.pull(
            pulling.Settings(
                source=settings.pacs,
                out=images,
                since=since,
                modality=settings.modality,
                boxes=settings.boxes,
                connections=settings.connections,
                title=settings.title,
                plain=settings.plain,
            ),
            console.progress,
        )
        facts = {"since": since.isoformat(), **dataclasses.asdict(pulled)}
        if pulled.manifest is None:
            return None, facts
        others = {
            key for it in nights.values() for key in _keys(parquet(objects.read(it).data).read())
        }
        table = parquet(objects.read(pulled.manifest).data).read()
        fresh = table.filter(pa.array([key not in others for key in _keys(table)], pa.bool_()))
        sink = io.BytesIO()
        pq.write_table(fresh, sink, write_page_checksum=True)
        objects.update(uri, sink.getvalue(), None)  # where two run at once, one writes it
        return _Manifest(uri, _rows(uri)), facts
    except StorageError as error:
        raise UserError(f"folder: {settings.folder}: {error}") from None


def _nights(settings: Settings) -> dict[date, str]:
    """The manifest of each night that there is."""
    from batch.storage import objects

    found = objects.list_files(objects.join(settings.folder, "images"))
    names = {uri: _NIGHT.search(uri) for uri in found}
    return {date.fromisoformat(name[1]): uri for uri, name in names.items() if name}


def _rows(manifest: str) -> int:
    from batch.results.schema import parquet
    from batch.storage import objects

    return int(parquet(objects.read(manifest).data).metadata.num_rows)


def _cut_short(settings: Settings) -> dict[date, str]:
    """The manifests of the nights whose images have not all been scored: they were killed."""
    from batch.storage.errors import StorageError

    try:
        return {
            day: uri
            for day, uri in _nights(settings).items()
            if "dicom" not in _last_report(settings, day) and _rows(uri)
        }
    except StorageError as error:
        raise UserError(f"folder: {settings.folder}: {error}") from None


def _last_report(settings: Settings, day: date) -> dict[str, Any]:
    """What is written of a night, nothing where none has come to its end."""
    from batch.storage import objects
    from batch.storage.errors import ObjectMissing

    try:
        read: dict[str, Any] = json.loads(objects.read(_report(settings, day)).data)
    except ObjectMissing:
        return {}
    return read


def _report(settings: Settings, day: date) -> str:
    from batch.storage import objects

    return objects.join(settings.folder, f"nights/{day}.json")


def _keys(table: pa.Table) -> list[tuple[Any, ...]]:
    """What each row asks for: an image, a frame and a box."""
    columns = [table[name].to_pylist() for name in _KEY]
    return list(zip(*columns, strict=True))


def _score(
    settings: Settings, day: date, manifest: str, out: str, stages: _Stages
) -> dict[str, Any]:
    """Score a manifest, and make the objects of its images."""
    from batch import run as running
    from batch.dicom import beside_results
    from batch.scoring.archive_file import open_archive

    with stages.stage("score"):
        engine = {"engine": settings.engine} if settings.engine else {}
        with open_archive(settings.archive, engine) as archive:
            beside_results.check_heads(archive.heads)
            summary = running.score(
                manifest,
                out,
                archive,
                explain=settings.explain,
                date=day.isoformat(),
                progress=console.progress,
            )
            with stages.stage("objects"):
                written = beside_results.write(
                    out,
                    summary.dataset,
                    archive,
                    settings.explain,
                    console.progress,
                    total=summary.rows,
                )
    return {"score": dataclasses.asdict(summary), "dicom": dataclasses.asdict(written)}


class _Stages:
    """How long each stage took, in seconds of the clock and of this process's CPUs."""

    def __init__(self) -> None:
        self.took: dict[str, dict[str, float]] = {}
        self._open: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside; not for the stage around it."""
        begun, cpu = time.monotonic(), _cpu_seconds()
        self._open.append(name)
        mine = self.took.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0})
        try:
            yield
        finally:
            took = {"seconds": time.monotonic() - begun, "cpu_seconds": _cpu_seconds() - cpu}
            self._open.pop()
            for key, value in took.items():
                mine[key] += value
                if self._open:
                    self.took[self._open[-1]][key] -= value


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system
