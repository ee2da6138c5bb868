"""What became of the objects of a record at a PACS: a ledger beside the record."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from batch import layout
from batch.dicom.ledger_file import Entry, LedgerFile
from batch.storage import objects

ACCEPTED, PRESENT = "accepted", "present"
UNCONFIRMED, REFUSED = "unconfirmed", "refused"
IMAGE_UNKNOWN, PATIENT_CHANGED = "image_unknown", "patient_changed"
STATUSES = (ACCEPTED, PRESENT, UNCONFIRMED, REFUSED, IMAGE_UNKNOWN, PATIENT_CHANGED)
REMEDIES = {
    UNCONFIRMED: "the PACS said that it took or has them, and does not name them; ask its operator "
    "for a filter or for work that waits there, and re-run to ask again; each is sent twice at "
    "most, then once more without the ledgers in OUT/_pushed",
    REFUSED: "the PACS refused them, with the status that the ledger in OUT/_pushed has",
    IMAGE_UNKNOWN: "the PACS does not have the images that they are of, or has moved them to "
    "another study or series; give the PACS that these came from, or --unknown-images",
    PATIENT_CHANGED: "the PACS has their studies under another patient than the images had when "
    "they were pulled; repeat those days: sonode dicom night SETTINGS --date DATE --folder EMPTY",
}
"""Why the PACS does not have objects, and what to do."""

_SCHEMA = pa.schema([(name, pa.string()) for name in ("object", "status", "message")])


def is_done(entry: Entry | None) -> bool:
    """Whether the PACS has the object."""
    return entry is not None and entry["status"] in (ACCEPTED, PRESENT)


def of_record(out: str, to: str, record_uri: str) -> LedgerFile:
    """The ledger of a record at a PACS, by the name of the object below OUT."""
    pacs = hashlib.sha256(to.rstrip("/").encode()).hexdigest()[:16]
    uri = objects.join(out, layout.dicom_ledger(pacs, record_uri))
    return LedgerFile(uri, _SCHEMA, "object", is_done)


def records(out: str, date: str | None = None) -> list[str]:
    """The records of OUT, or those of the results of a date."""
    folder = layout.DICOM if date is None else layout.dicom_records(date)
    found = objects.list_files(objects.join(out, folder), deep=True)
    return [uri for uri in found if layout.is_part(uri)]


def not_sent(out: str, to: str, date: str) -> int:
    """How many objects of a date's results the PACS does not have, as the ledgers say."""
    ledgers = [of_record(out, to, uri) for uri in records(out, date)]
    return sum(not is_done(it) for each in ledgers for it in each.entries.values())
