"""The objects of OUT -> the PACS that has their images, with a ledger of what became of each.

A ledger lies beside each record (`beside_results`), one for each PACS. An object is `accepted`,
`present` (the PACS had it already), `refused` with the PACS' status, or `image_unknown`: the PACS
does not have the image that was scored, so nothing of it is sent there.

An object that is not in the ledger is asked for before it is sent: a push that was killed behind
an object and before its ledger finds it `present`. So nothing is sent twice, but for what was on
its way when a push was killed or an answer got lost: it is the same object, of the same UID and
bytes. The ledger has no name and no UID.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom

from batch import layout
from batch.dicom.connections import Identity, NoAnswer, Web, address
from batch.dicom.cstore import Peer
from batch.dicom.destination import AlreadyThere, Destination, Instance, Refused
from batch.dicom.objects import KINDS
from batch.dicom.stow import Service
from batch.results import schema as results
from batch.storage import objects
from batch.storage.errors import ObjectMissing, StorageError
from sonode.console import UserError

ACCEPTED, PRESENT, REFUSED, IMAGE_UNKNOWN = "accepted", "present", "refused", "image_unknown"
_WRITE_EACH = 32  # objects between two writes of a ledger

_SCHEMA = pa.schema([(name, pa.string()) for name in ("object", "status", "message")])

Entry = dict[str, str | None]
Ledger = dict[str, Entry]
"""By the name of the object below OUT."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What the ledgers of a PACS say after a push."""

    by_status: dict[str, int]
    sent: int
    """Objects that this push sent."""
    stopped: str | None
    """Why it ended before its end: the PACS did not answer."""


def push_to(
    out: str,
    to: str,
    *,
    title: str,
    plain: bool,
    unknown_images: bool,
    progress: Callable[..., Iterator[Any]],
) -> Pushed:
    """Send what the PACS at an address lacks of the objects in OUT.

    Args:
        out: results with DICOM objects.
        to: as `connections.address` reads it.
        title: the AE title to call as, for DIMSE.
        plain: without TLS.
        unknown_images: send also where the PACS does not have the image.
        progress: as `console.progress`.

    Raises:
        UserError: for the address or the credentials, where the PACS takes nothing from sonode, or
            where OUT cannot be read or written, or has no objects.
    """
    where, identity = address(to, "--to", plain=plain), Identity.of_environment()
    pacs: Destination = (
        Service(where, identity)
        if isinstance(where, Web)
        else Peer(where, title, identity, plain=plain, blind=unknown_images)
    )
    with closing(pacs):
        return push(out, to, pacs, unknown_images=unknown_images, progress=progress)


def push(
    out: str,
    to: str,
    pacs: Destination,
    *,
    unknown_images: bool,
    progress: Callable[..., Iterator[Any]],
) -> Pushed:
    """Send what a PACS lacks of the objects in OUT.

    `to` names the ledger. `unknown_images`: send also where the PACS does not have the image.
    Raises UserError where OUT cannot be read or written, or has no objects.
    """
    statuses = Counter(dict.fromkeys((ACCEPTED, PRESENT, REFUSED, IMAGE_UNKNOWN), 0))
    sender = _Sender(out, hashlib.sha256(to.rstrip("/").encode()).hexdigest()[:16], pacs)
    sender.unknown_images = unknown_images
    stopped = None
    try:
        found = objects.list_files(objects.join(out, layout.DICOM), deep=True)
        records = [uri for uri in found if layout.is_part(uri)]
        if not records:
            raise UserError(f"{out}: no DICOM objects; make them by `sonode score ... --dicom`")
        rows = {uri: _rows(uri) for uri in records}
        total = sum(map(len, rows.values()))
        each = (entry for uri, its in rows.items() for entry in sender.of_record(uri, its))
        for entry in progress(each, total=total * len(KINDS), what="objects"):
            statuses[entry["status"]] += 1
    except NoAnswer as error:
        stopped = str(error)
    except StorageError as error:
        raise UserError(f"{out}: {error}") from None
    return Pushed(by_status=dict(statuses), sent=sender.sent, stopped=stopped)


class _Sender:
    """Sends the objects of one OUT to one PACS."""

    unknown_images = False

    def __init__(self, out: str, target: str, pacs: Destination) -> None:
        self._out, self._target, self._pacs = out, target, pacs
        self.sent = 0

    def of_record(self, record_uri: str, rows: list[dict[str, str]]) -> Iterator[Entry]:
        """Send what is missing of the rows of a record; yield the entry of each object."""
        uri = objects.join(self._out, layout.dicom_ledger(self._target, record_uri))
        ledger, etag = _ledger(uri)
        unwritten = 0
        try:
            for row in rows:
                image_there = None
                for name in row.values():
                    entry = ledger.get(name)
                    if entry is None or entry["status"] not in (ACCEPTED, PRESENT):
                        if image_there is None:
                            image_there = self.unknown_images or self._has_image_of(row["sr"])
                        ledger[name] = entry = self._entry(name, image_there)
                        unwritten += 1
                    yield entry
                if unwritten >= _WRITE_EACH:
                    ledger, etag = self._write(uri, ledger, etag)
                    unwritten = 0
        finally:  # also where the PACS stops answering
            if unwritten:
                self._write(uri, ledger, etag)

    def _write(self, uri: str, ledger: Ledger, etag: str | None) -> tuple[Ledger, str | None]:
        """Write the ledger, with what another push has found meanwhile."""
        while not objects.update(uri, _encoded(ledger), etag):
            others, etag = _ledger(uri)
            good = {name: it for name, it in others.items() if it["status"] in (ACCEPTED, PRESENT)}
            ledger = {**others, **ledger, **good}
        return _ledger(uri)

    def _has_image_of(self, report: str) -> bool:
        dataset = self._read(report)
        (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
        (series,) = study.ReferencedSeriesSequence
        (image,) = series.ReferencedSOPSequence
        return self._pacs.has(
            Instance(
                study.StudyInstanceUID, series.SeriesInstanceUID, image.ReferencedSOPInstanceUID
            )
        )

    def _entry(self, name: str, image_there: bool) -> Entry:
        entry: Entry = {"object": name, "status": IMAGE_UNKNOWN, "message": None}
        if not image_there:
            return entry
        file = objects.read(objects.join(self._out, name)).data
        read = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
        it = Instance(read.StudyInstanceUID, read.SeriesInstanceUID, read.SOPInstanceUID)
        if self._pacs.has(it):
            return {**entry, "status": PRESENT}
        try:
            remark = self._store(it, file)
        except AlreadyThere:
            return {**entry, "status": PRESENT}
        except Refused as refusal:
            return {**entry, "status": REFUSED, "message": str(refusal)}
        self.sent += 1
        return {**entry, "status": ACCEPTED, "message": remark}

    def _store(self, it: Instance, file: bytes) -> str | None:
        """Store an object; where no answer comes, ask for it and send it once again."""
        try:
            return self._pacs.store(file)
        except NoAnswer as first:
            if self._pacs.has(it):
                return f"it has arrived; its answer was lost ({first})"
        try:
            return self._pacs.store(file)
        except NoAnswer as second:
            # A PACS that answers this question is there: it is the object that it stumbles over.
            if self._pacs.has(it):
                return f"it has arrived; its answer was lost ({second})"
            raise Refused(f"no answer to this object ({second})") from None

    def _read(self, name: str) -> pydicom.Dataset:
        return pydicom.dcmread(io.BytesIO(objects.read(objects.join(self._out, name)).data))


def _rows(record_uri: str) -> list[dict[str, str]]:
    """The names of the objects of each row that has them, by kind."""
    rows = results.parquet(objects.read(record_uri).data).read(columns=[*KINDS]).to_pylist()
    return [row for row in rows if row["sr"] is not None]


def _ledger(uri: str) -> tuple[Ledger, str | None]:
    try:
        found = objects.read(uri)
    except ObjectMissing:
        return {}, None
    rows = results.parquet(found.data).read().to_pylist()
    return {row["object"]: row for row in rows}, found.etag


def _encoded(ledger: Ledger) -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist(list(ledger.values()), schema=_SCHEMA)
    pq.write_table(table, sink, write_page_checksum=True)
    return sink.getvalue()
