"""A night: pull -> score -> push, whatever became of the nights before.

Its images are settled once, when all have come: so a re-run of the same date goes on where it
ended. A night that was killed is ended by the next one, and one that was missed is asked for.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from datetime import date, timedelta
from typing import Any

from batch import run as running
from batch.dicom.making import beside_results
from batch.dicom.pulling import pull as pulling
from batch.dicom.pushing import ledger
from batch.dicom.pushing import push as pushing
from batch.night.register import Register
from batch.night.settings import Settings
from batch.night.stages import Stages
from batch.scoring.archive_file import open_archive
from batch.storage import objects
from batch.storage.errors import ObjectMissing, as_user_error
from sonode import console
from sonode.console import TRY_AGAIN, UserError

Report = dict[str, Any]
_OFFERED_DAYS = 7  # that later nights go on offering what the PACS does not take


def run(settings: Settings, day: date) -> Report:
    """Do what is missing of a night; return its report, which is written below the folder, too.

    Raises UserError, as pull, score and push do.
    """
    with as_user_error(f"folder: {settings.folder}"):
        return _Night(settings, day).run()


class _Stopped(Exception):  # noqa: N818 - reads as what it is
    """The PACS does not answer as it should; the message is how."""


class _Night:
    def __init__(self, settings: Settings, day: date) -> None:
        self._settings, self._day = settings, day
        self._results = objects.join(settings.folder, "results")
        self._register = Register(settings.folder)
        self._stages = Stages()
        self._report: Report = {"date": day.isoformat()}

    def run(self) -> Report:
        stopped: list[str] = []
        try:
            with self._stages.stage("pull"):
                self._pull()
            self._score()
            with self._stages.stage("push"):
                self._push()
        except _Stopped as error:
            stopped = [f"the PACS does not answer as it should ({error})"]
        except UserError as error:
            if self._day in self._register.nights:  # what was pulled is told, also by a re-run
                ended = {"stages": self._stages.report(), "exit_code": 2, "why": str(error)}
                self._write(self._day, self._report | ended)
            raise
        nights = self._register.nights
        faults = [text for _, night in sorted(nights.items()) for text in night.faults.values()]
        self._report |= {
            "stages": self._stages.report(),
            "exit_code": TRY_AGAIN if stopped else int(bool(faults)),
            "why": ", ".join([*stopped, *faults]) or None,
        }
        self._write(self._day, self._report)
        if not stopped:  # else the run that follows has the exit code that tells them
            for each, night in nights.items():
                self._register.note(each, faults=dict.fromkeys(night.faults))
        return self._report

    def _pull(self) -> None:
        """Settle the night's images, unless they are."""
        settings, day, nights = self._settings, self._day, self._register.nights
        if day in nights:
            self._report["pull"] = self._last_report().get("pull", {})
            return
        # The day of the last night was not over then, and nights after it did not come about.
        first = max((it for it in nights if it < day), default=day)
        since = first - timedelta(days=settings.days - 1)
        pulled = pulling.pull(
            pulling.Settings(
                source=settings.pacs,
                out=objects.join(settings.folder, "images"),
                since=since,
                option="pacs",
                **{
                    key: getattr(settings, key)
                    for key in ("modality", "boxes", "connections", "receive", "title", "plain")
                },
            ),
            console.progress,
        )
        self._report["pull"] = {"since": since.isoformat(), **pulled.facts()}
        if pulled.stopped:
            raise _Stopped(pulled.stopped)
        lacking = (
            f"the PACS counts {pulled.lacking} objects or series more than it names: raise its "
            "limit of answers"
        )
        self._register.claim(day, pulled.table, pulled.refused, lacking if pulled.lacking else "")

    def _score(self) -> None:
        """Score this night, and those that were cut short."""
        for each, night in sorted(self._register.nights.items()):
            if night.rows and (each == self._day or not night.scored):
                manifest = objects.join(self._settings.folder, night.manifest)
                try:
                    scored = self._scored(each, manifest)
                except UserError as error:
                    if each == self._day:
                        raise
                    why = f"the night of {each} cannot be scored: {error}"
                    self._register.note(each, faults={"score": why})
                    continue
                failed = any(scored[it]["by_status"]["failed"] for it in ("score", "dicom"))
                fault = f"images failed of the night of {each}" if failed else None
                # What it has made now is to be sent, though it was closed before.
                self._register.note(each, scored=True, closed=False, faults={"score": fault})
                if each == self._day:
                    self._report |= scored
                else:
                    self._report.setdefault("earlier", {})[each.isoformat()] = scored
                    ended = {"date": each.isoformat(), "ended_by": self._day.isoformat()}
                    self._write(each, ended | scored)

    def _scored(self, day: date, manifest: str) -> Report:
        """Score a manifest, and make the objects of its images."""
        settings = self._settings
        with self._stages.stage("score"):
            engine = {"engine": settings.engine} if settings.engine else {}
            with ExitStack() as stack:
                with self._stages.stage("load"):
                    archive = stack.enter_context(open_archive(settings.archive, engine))
                beside_results.check_heads(archive.heads)
                summary = running.score(
                    manifest,
                    self._results,
                    archive,
                    explain=settings.explain,
                    date=day.isoformat(),
                    progress=console.progress,
                )
                with self._stages.stage("objects"):
                    written = beside_results.write(
                        self._results,
                        summary.dataset,
                        archive,
                        settings.explain,
                        console.progress,
                        total=summary.rows,
                    )
        return {"score": dataclasses.asdict(summary), "dicom": dataclasses.asdict(written)}

    def _push(self) -> None:
        """Send what the PACS lacks of this night and of those that are not closed."""
        settings, day = self._settings, self._day
        to, option = (settings.to, "to") if settings.to else (settings.pacs, "pacs")
        nights = self._register.nights
        offered = {it for it in nights if nights[it].rows and (it == day or not nights[it].closed)}
        pushed = pushing.push_to(
            *(self._results, to),
            option=option,
            title=settings.title,
            plain=settings.plain,
            unknown_images=False,
            progress=console.progress,
            dates=[it.isoformat() for it in offered],
        )
        self._report["push"] = dataclasses.asdict(pushed)
        if pushed.stopped:
            raise _Stopped(pushed.stopped)
        standing = {}
        for each, night in nights.items():
            left = night.not_sent
            if each in offered:
                left = pushed.not_sent.get(each.isoformat(), 0)
            elif left:  # it may be that somebody has sent them
                left = ledger.not_sent(self._results, to, each.isoformat())
            why = None
            if left and (each == day or left > night.not_sent):
                why = f"{console.counted(left, 'object')} of the night of {each} not at the PACS"
            elif left:
                standing[each.isoformat()] = left
                why = night.faults.get("push")  # of a run that was killed before it told
            old = (day - each).days >= _OFFERED_DAYS
            closed = night.scored and (not left or old)
            self._register.note(each, not_sent=left, closed=closed, faults={"push": why})
        self._report["standing"] = standing

    def _last_report(self) -> Report:
        """What is written of this night, nothing where it has not come to its end."""
        try:
            read: Report = json.loads(objects.read(self._path(self._day)).data)
        except ObjectMissing:
            return {}
        return read

    def _write(self, day: date, report: Report) -> None:
        objects.write(self._path(day), json.dumps(report, indent=1).encode())

    def _path(self, day: date) -> str:
        return objects.join(self._settings.folder, f"nights/{day}.json")
