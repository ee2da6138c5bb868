"""Sends the objects of one record after the other, and writes what became of each."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence

import pydicom
from pydicom.dataset import Dataset

from batch.dicom.ledger_file import Entry, LedgerFile
from batch.dicom.peers.answers import AlreadyThere, Instance, NoAnswer, Refused
from batch.dicom.pushing import ledger, patient
from batch.dicom.pushing.destination import Destination
from batch.storage import objects

_ROWS = 10  # between two writes of a ledger; their UIDs fit into one question
WAITS_S = (0.5, 2.0)
"""Before it is asked again whether it has what it took: some take their time."""

Sent = list[tuple[str, Instance]]
"""Objects that the PACS took, by their name and its own."""


class Sender:
    """Sends the objects of OUT to the PACS whose address is `to`.

    With `unknown_images` also where the PACS does not have the image.
    """

    def __init__(self, out: str, to: str, pacs: Destination, *, unknown_images: bool) -> None:
        self._out, self._to, self._pacs = out, to, pacs
        self._unknown_images = unknown_images
        self.sent = 0

    def of_record(self, record_uri: str, rows: list[dict[str, str]]) -> Iterator[Entry]:
        """Send what is missing of the rows of a record; yield the entry of each object."""
        held = ledger.of_record(self._out, self._to, record_uri)
        for first in range(0, len(rows), _ROWS):
            some = rows[first : first + _ROWS]
            before = dict(held.entries)
            try:
                self._send(some, held)
            finally:  # also where the PACS stops answering
                if held.entries != before:
                    held.write()
            yield from (held.entries[name] for row in some for name in row.values())

    def _send(self, rows: list[dict[str, str]], held: LedgerFile) -> None:
        """Send what is missing of some rows, then ask whether it is there."""
        sent: Sent = []
        for row in rows:
            lacking = [it for it in row.values() if not ledger.is_done(held.entries.get(it))]
            if lacking:
                self._send_row(row["sr"], lacking, held.entries, sent)
        for study in {it.study: None for _, it in sent}:
            self._confirm([it for it in sent if it[1].study == study], held.entries)

    def _send_row(
        self, report: str, lacking: Sequence[str], entries: dict[str, Entry], sent: Sent
    ) -> None:
        """Send what is lacking of the objects of an image; `sent` grows by what was taken."""
        made = {name: self._read(name) for name in {report, *lacking}}
        names = {name: _named(made[name]) for name in lacking}
        image = _image_of(made[report])
        there = self._present([*names.values(), image])
        unfit = self._unfit(made[report], image, there)
        for name, it in names.items():
            was = entries.get(name)
            entry: Entry = {"object": name, "status": unfit, "message": None}
            if it.instance in there:  # also one that was made anew elsewhere
                took = was is not None and was["status"] == ledger.UNCONFIRMED
                status = ledger.ACCEPTED if took else ledger.PRESENT
                entries[name] = {**(was if was and took else entry), "status": status}
            elif unfit is not None:
                entries[name] = entry
            else:
                entries[name] = self._entry(entry, it, made[name])
                if entries[name]["status"] == ledger.UNCONFIRMED:
                    sent.append((name, it))

    def _unfit(self, report: Dataset, image: Instance, there: set[str]) -> str | None:
        """Why the objects of an image are not sent to the PACS as it is now, None if they are."""
        patients = self._pacs.patients(image.study)
        if not all(patient.is_same(report, it) for it in patients):
            return ledger.PATIENT_CHANGED
        is_there = patients and image.instance in there
        return None if is_there or self._unknown_images else ledger.IMAGE_UNKNOWN

    def _entry(self, entry: Entry, it: Instance, made: Dataset) -> Entry:
        try:
            remark = self._store(it, made)
        except AlreadyThere:
            return {**entry, "status": ledger.PRESENT}
        except Refused as refusal:
            return {**entry, "status": ledger.REFUSED, "message": str(refusal)}
        self.sent += 1
        return {**entry, "status": ledger.UNCONFIRMED, "message": remark}

    def _store(self, it: Instance, made: Dataset) -> str | None:
        """Store an object; where no answer comes, ask for it and send it once again."""
        try:
            return self._pacs.store(made)
        except NoAnswer as first:
            if self._pacs.has(it):
                return f"it has arrived; its answer was lost ({first})"
        try:
            return self._pacs.store(made)
        except NoAnswer as second:
            # A PACS that answers this question is there: it is the object that it stumbles over.
            if self._pacs.has(it):
                return f"it has arrived; its answer was lost ({second})"
            raise Refused(f"no answer to this object ({second})") from None

    def _confirm(self, sent: Sent, entries: dict[str, Entry]) -> None:
        """Note which of the objects of a study that the PACS took it has."""
        for wait_s in (*WAITS_S, None):
            there = self._present([it for _, it in sent]) if self._pacs.tells() else None
            for name, it in sent:
                if there is None or it.instance in there:
                    entries[name] = {**entries[name], "status": ledger.ACCEPTED}
            sent = [it for it in sent if entries[it[0]]["status"] != ledger.ACCEPTED]
            if not sent or wait_s is None:
                return
            time.sleep(wait_s)

    def _present(self, its: Sequence[Instance]) -> set[str]:
        """Which of some objects of one study the PACS has.

        All are asked for at once. What it does not name, it does not have, if it names the last:
        then it understands lists of UIDs. Else each is asked for by itself.
        """
        named = self._pacs.named(its[0].study, [it.instance for it in its])
        if its[-1].instance in named:
            return named
        return named | {
            it.instance for it in its if it.instance not in named and self._pacs.has(it)
        }

    def _read(self, name: str) -> Dataset:
        return pydicom.dcmread(io.BytesIO(objects.read(objects.join(self._out, name)).data))


def _named(made: Dataset) -> Instance:
    return Instance(made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID)


def _image_of(report: Dataset) -> Instance:
    """The image that a report is of."""
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    where = (study.StudyInstanceUID, series.SeriesInstanceUID)
    return Instance(*where, image.ReferencedSOPInstanceUID)
