"""Sends the objects of one record after the other, and writes what became of each."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pydicom
from pydicom.dataset import Dataset

from batch.dicom.ledger_file import Entry
from batch.dicom.peers.answers import AlreadyThere, Instance, NoAnswer, Refused
from batch.dicom.pushing import ledger, patient
from batch.dicom.pushing.destination import Destination
from batch.storage import objects

_WRITE_EACH = 32  # objects between two writes of a ledger


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
        unwritten = 0
        try:
            for row in rows:
                lacking = {it for it in row.values() if not ledger.is_done(held.entries.get(it))}
                unfit = self._unfit(row["sr"]) if lacking else None
                for name in row.values():
                    if name in lacking:
                        held.entries[name] = self._entry(name, unfit)
                        unwritten += 1
                    yield held.entries[name]
                if unwritten >= _WRITE_EACH:
                    held.write()
                    unwritten = 0
        finally:  # also where the PACS stops answering
            if unwritten:
                held.write()

    def _unfit(self, report: str) -> str | None:
        """Why the objects of an image are not sent to the PACS as it is now, None if they are."""
        made = self._read(report)
        (study,) = made.CurrentRequestedProcedureEvidenceSequence
        (series,) = study.ReferencedSeriesSequence
        (image,) = series.ReferencedSOPSequence
        where = (study.StudyInstanceUID, series.SeriesInstanceUID)
        patients = self._pacs.patients(study.StudyInstanceUID)
        if not all(patient.is_same(made, it) for it in patients):
            return ledger.PATIENT_CHANGED
        if self._unknown_images:
            return None
        is_there = patients and self._pacs.has(Instance(*where, image.ReferencedSOPInstanceUID))
        return None if is_there else ledger.IMAGE_UNKNOWN

    def _entry(self, name: str, unfit: str | None) -> Entry:
        entry: Entry = {"object": name, "status": unfit, "message": None}
        made = self._read(name)
        it = Instance(made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID)
        if self._pacs.has(it):
            return {**entry, "status": ledger.PRESENT}  # also one that was made anew elsewhere
        if unfit is not None:
            return entry
        try:
            remark = self._store(it, made)
        except AlreadyThere:
            return {**entry, "status": ledger.PRESENT}
        except Refused as refusal:
            return {**entry, "status": ledger.REFUSED, "message": str(refusal)}
        self.sent += 1
        return {**entry, "status": ledger.ACCEPTED, "message": remark}

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

    def _read(self, name: str) -> Dataset:
        return pydicom.dcmread(io.BytesIO(objects.read(objects.join(self._out, name)).data))
