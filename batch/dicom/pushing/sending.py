"""Sends the objects of one record after the other, and writes what became of each."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pydicom
from pydicom.dataset import Dataset

from batch.dicom.ledger_file import Entry
from batch.dicom.peers.answers import WAITS_S, AlreadyThere, Instance, NoAnswer, Refused, asked
from batch.dicom.pushing import ledger, patient
from batch.dicom.pushing.destination import Destination
from batch.storage import objects
from sonode.console import UserError

_ROWS = 10  # between two writes of a ledger; their UIDs fit into one question
LATE_S = (0.5, 2.0, 10.0, 30.0)
"""Before it is asked again, at the end of a push, for what it took: some take their time."""
_AGAIN, _HAD = "sent again", "the PACS says that it has it already"  # in messages of a ledger

Sent = dict[str, Instance]
"""Objects that the PACS took, by their name."""


class Sender:
    """Sends the objects of OUT to the PACS whose address is `to`.

    With `unknown_images` also where the PACS does not have the image.
    """

    def __init__(self, out: str, to: str, pacs: Destination, *, unknown_images: bool) -> None:
        self._out, self._to, self._pacs = out, to, pacs
        self._unknown_images = unknown_images
        self._late: list[tuple[str, Sent]] = []  # with their record
        self.sent = 0

    def of_record(self, record_uri: str, rows: list[dict[str, str]]) -> Iterator[Entry]:
        """Send what is missing of the rows of a record; yield the entry of each object."""
        held = ledger.of_record(self._out, self._to, record_uri)
        for first in range(0, len(rows), _ROWS):
            some = rows[first : first + _ROWS]
            before = dict(held.entries)
            try:
                sent: Sent = {}
                for row in some:
                    self._send_row(row, held.entries, sent)
                if sent:
                    took = {it.instance for it in sent.values()}
                    there = (
                        self._named([*sent.values()]) if asked(self._pacs.tells, WAITS_S) else took
                    )
                    self._confirm(record_uri, sent, there, held.entries)
            finally:  # also where the PACS stops answering
                if held.entries != before:
                    held.write()
            yield from (held.entries[name] for row in some for name in row.values())

    def settle(self) -> Iterator[tuple[str, Entry]]:
        """Ask again for what the PACS took and did not name, until it has it or LATE_S are over.

        Yield the record and the new entry of each object that it has by now.
        """
        for wait_s in LATE_S:
            late, self._late = self._late, []
            if late:
                time.sleep(wait_s)
            for record_uri, sent in late:
                there = self._present([*sent.values()], each=True)
                held = ledger.of_record(self._out, self._to, record_uri)
                found = self._confirm(record_uri, sent, there, held.entries)
                if found:
                    held.write()
                yield from ((record_uri, held.entries[name]) for name in found)

    def _confirm(
        self, record_uri: str, sent: Sent, there: set[str], entries: dict[str, Entry]
    ) -> list[str]:
        """Note what the PACS has of what it took, and name it; the rest is asked for later."""
        found = [name for name, it in sent.items() if it.instance in there]
        for name in found:
            entries[name] = _confirmed(entries[name])
        if rest := {name: it for name, it in sent.items() if it.instance not in there}:
            self._late.append((record_uri, rest))
        return found

    def _send_row(self, row: dict[str, str], entries: dict[str, Entry], sent: Sent) -> None:
        """Send what is lacking of the objects of an image; `sent` grows by what was taken."""
        lacking = [it for it in row.values() if not ledger.is_done(entries.get(it))]
        if not lacking:
            return
        made = {name: self._read(name) for name in {row["sr"], *lacking}}
        names = {name: _named(made[name]) for name in lacking}
        image = _image_of(made[row["sr"]])
        is_new = entries.keys().isdisjoint(lacking)
        there = self._present([*names.values(), image], each=not is_new)
        unfit = self._unfit(made[row["sr"]], image, there)
        for name, it in names.items():
            was = entries.get(name, {})
            took = was.get("status") == ledger.UNCONFIRMED
            entry: Entry = {"object": name, "status": unfit, "message": None}
            if it.instance in there:  # also one that was made anew elsewhere
                entries[name] = _confirmed(was) if took else {**entry, "status": ledger.PRESENT}
            elif unfit is not None:
                entries[name] = entry
            elif not (took and (was["message"] or "").startswith(_AGAIN)):
                entries[name] = self._entry(entry, it, made[name], [_AGAIN] * took)
                if entries[name]["status"] == ledger.UNCONFIRMED:
                    sent[name] = it

    def _unfit(self, report: Dataset, image: Instance, there: set[str]) -> str | None:
        """Why the objects of an image are not sent to the PACS as it is now, None if they are."""
        patients = asked(lambda: self._pacs.patients(image.study), WAITS_S)
        if not all(patient.is_same(report, it) for it in patients):
            return ledger.PATIENT_CHANGED
        is_there = patients and image.instance in there
        return None if is_there or self._unknown_images else ledger.IMAGE_UNKNOWN

    def _entry(self, entry: Entry, it: Instance, made: Dataset, words: list[str]) -> Entry:
        """Send an object; `words` begin its message."""
        try:
            remark = self._store(it, made)
            self.sent += 1
        except AlreadyThere:
            remark = _HAD
        except Refused as refusal:
            return {**entry, "status": ledger.REFUSED, "message": str(refusal)}
        message = "; ".join([*words, *filter(None, [remark])]) or None
        return {**entry, "status": ledger.UNCONFIRMED, "message": message}

    def _store(self, it: Instance, made: Dataset) -> str | None:
        """Store an object; where no answer comes, ask for it and send it once again."""
        try:
            return self._pacs.store(made)
        except NoAnswer as first:
            if self._has(it):
                return f"it has arrived; its answer was lost ({first})"
        try:
            return self._pacs.store(made)
        except NoAnswer as second:
            # A PACS that answers this question is there: it is the object that it stumbles over.
            if self._has(it):
                return f"it has arrived; its answer was lost ({second})"
            raise Refused(f"no answer to this object ({second})") from None

    def _present(self, its: Sequence[Instance], *, each: bool) -> set[str]:
        """Which of some objects the PACS has.

        They are asked for at once. What is not named is asked for by itself, unless the last is
        named and not `each`: then the PACS understands lists.
        """
        named = self._named(its)
        if its[-1].instance in named and not each:
            return named
        return named | {it.instance for it in its if it.instance not in named and self._has(it)}

    def _named(self, its: Sequence[Instance]) -> set[str]:
        """Those of some objects that the PACS names when it is asked for those of a study at once.

        None of a study where it does not answer, or names others, too: it does not know lists.
        """
        found: set[str] = set()
        for study in {it.study: None for it in its}:
            some = [it for it in its if it.study == study]
            with suppress(NoAnswer, UserError):  # `has` tells whether it is so for one, too
                named = self._pacs.named(some)
                found |= named if named <= {it.instance for it in some} else set()
        return found

    def _has(self, it: Instance) -> bool:
        return asked(lambda: self._pacs.has(it), WAITS_S)

    def _read(self, name: str) -> Dataset:
        return pydicom.dcmread(io.BytesIO(objects.read(objects.join(self._out, name)).data))


def _confirmed(entry: Entry) -> Entry:
    """Of what the PACS took, or said that it had, when it is there."""
    had = (entry["message"] or "").endswith(_HAD)
    return {**entry, "status": ledger.PRESENT if had else ledger.ACCEPTED}


def _named(made: Dataset) -> Instance:
    return Instance(made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID)


def _image_of(report: Dataset) -> Instance:
    """The image that a report is of."""
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    where = (study.StudyInstanceUID, series.SeriesInstanceUID)
    return Instance(*where, image.ReferencedSOPInstanceUID)
