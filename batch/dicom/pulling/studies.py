"""Completes study by study what OUT lacks of what the PACS names.

Each connection works on one study at a time, and is of one thread. An object is written before its
ledger: whenever a pull is killed, the next one asks for no object again that is in OUT.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from batch.dicom.ledger_file import Entry, LedgerFile
from batch.dicom.origins import spans
from batch.dicom.origins.origin import Named, Origin
from batch.dicom.peers.answers import NoAnswer, Refused, asked
from batch.dicom.pulling import files, ledger
from batch.dicom.pulling.ledger import Entries
from batch.dicom.pulling.settings import DRAWING, Settings
from batch.storage import objects

T = TypeVar("T")
_WRITE_EACH = 32  # objects between two writes of a ledger


@dataclass(kw_only=True)
class Study:
    """What became of the objects that the PACS names of a study."""

    named: list[Named]
    entries: Entries
    lacking: int = 0
    """As `Objects` has it."""
    pulled: int = 0
    stopped: str | None = None


class Puller:
    """Pulls with a connection for each thread."""

    def __init__(self, settings: Settings, opened: Callable[[], Origin]) -> None:
        self._settings, self._opened = settings, opened
        self._modalities = {settings.modality, *DRAWING}
        self._end = threading.Event()
        self._own = threading.local()
        self._origins: list[Origin] = []

    def run(self, progress: Callable[..., Iterator[Any]]) -> Iterator[tuple[str, Study]]:
        """Complete each study in the order of their UIDs. Raises NoAnswer, and as `pull`."""
        pool = ThreadPoolExecutor(self._settings.connections)
        try:
            told = pool.submit(self._studies).result()
            studies = sorted(told)
            works = [pool.submit(self._study, study, told[study]) for study in studies]
            found = ((study, it.result()) for study, it in zip(studies, works, strict=True))
            yield from progress(found, total=max(1, len(studies)), what="studies")
        finally:
            self._end.set()  # where something was raised, no thread goes on
            pool.shutdown(cancel_futures=True)
            for origin in self._origins:
                origin.close()

    def _studies(self) -> spans.Found:
        settings = self._settings
        return spans.studies(
            settings.since,
            lambda span: self._ask(lambda it: it.studies(span, settings.modality)),
            datetime.now(UTC).date(),
        )

    def _study(self, study: str, told: int | None) -> Study:
        """Complete a study; once one was stopped, none is begun."""
        its = Study(named=[], entries={})
        if self._end.is_set():
            return its
        try:
            found = self._ask(lambda it: it.objects(study, self._modalities, told))
            its.named, its.lacking = found
            held = ledger.of_study(self._settings.out, study)
            its.entries = held.entries
            self._complete(study, its, held)
        except NoAnswer as error:
            self._end.set()
            its.stopped = str(error)
        return its

    def _complete(self, study: str, its: Study, held: LedgerFile) -> None:
        lacking = [it for it in its.named if not ledger.is_done(its.entries.get(it.it.instance))]
        if not lacking:
            return
        there = {
            uri.rpartition("/")[2]
            for uri in objects.list_files(
                objects.join(self._settings.out, ledger.study_folder(study))
            )
        }
        unwritten = 0
        try:
            for it in lacking:
                if self._end.is_set():
                    return
                held.entries[it.it.instance] = self._entry(it, its, there)
                unwritten += 1
                if unwritten == _WRITE_EACH:
                    held.write()
                    unwritten = 0
        finally:  # also where the PACS stops answering
            if unwritten:
                held.write()
            its.entries = held.entries

    def _entry(self, named: Named, its: Study, there: Collection[str]) -> Entry:
        """Pull an object, unless it is `there`; give its entry."""
        study, series, uid = named.it
        name = ledger.object_name(study, uid)
        uri = objects.join(self._settings.out, name)
        is_there = name.rpartition("/")[2] in there
        try:
            data = objects.read(uri).data if is_there else self._fetch(named)
            facts = files.facts(data, named.it)
            modality = named.modality or facts.modality
            if source := DRAWING.get(modality):
                drawings = files.drawings(data)
                boxes = [
                    {"instance": it.instance, "frame": it.frame}
                    | dict(zip(("x_min", "y_min", "x_max", "y_max"), it.box, strict=True))
                    for it in drawings.boxes
                ]
                more = {"not_boxes": drawings.not_boxes, "by_sonode": drawings.by_sonode}
                return ledger.new(uid, series, ledger.READ, source=source, boxes=boxes, **more)
        except Refused as refusal:
            return ledger.new(uid, series, ledger.REFUSED, message=str(refusal))
        if not facts.is_image or modality != self._settings.modality:
            return ledger.new(uid, series, ledger.NO_IMAGE)
        if not is_there:
            objects.write(uri, data)
            its.pulled += 1
        return ledger.new(
            *(uid, series, ledger.PULLED),
            etag=objects.etag_of(uri),
            frames=facts.frames,
            width=facts.width,
            height=facts.height,
            device=facts.device,
        )

    def _fetch(self, named: Named) -> bytes:
        """Take an object. Raises Refused, also where the PACS answers everything but this twice."""
        try:
            return self._origin().fetch(named)
        except NoAnswer:
            self._ask(lambda it: it.objects(named.it.study, self._modalities, None))
        try:
            return self._origin().fetch(named)
        except NoAnswer as error:
            self._ask(lambda it: it.objects(named.it.study, self._modalities, None))
            raise Refused(f"no answer to this object ({error})") from None

    def _ask(self, question: Callable[[Origin], T]) -> T:
        """Put a question, again after each wait."""
        return asked(lambda: question(self._origin()), self._settings.waits_s, self._end.wait)

    def _origin(self) -> Origin:
        """This thread's connection."""
        found: Origin | None = getattr(self._own, "origin", None)
        if found is None:
            found = self._own.origin = self._opened()
            self._origins.append(found)
        return found
