"""Where everything lies below OUT of a pull, and the ledger of a study: what became of each object.

    manifest.parquet                 images with a RoI, as `sonode score` takes them
    without_roi.parquet              the other images, each with the reason
    objects/STUDY/INSTANCE.dcm       the images, with patients' names and ids
    _pulled/STUDY.parquet            the ledger of a study

STUDY and INSTANCE are hashes of UIDs: a path names nobody. Of SRs and presentation states the
ledger has the boxes, and OUT no object. An object is `pulled`; `no_image`, one without pixels;
`read`, an SR or a presentation state; or `refused`, with the PACS' status: only that is asked for
again. A file in `objects` that the ledger does not have yet is one of a pull that was killed.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch.results import schema as results
from batch.storage import objects
from batch.storage.errors import ObjectMissing
from sonode.console import UserError

PULLED, NO_IMAGE, READ, REFUSED = "pulled", "no_image", "read", "refused"
STATUSES = (PULLED, NO_IMAGE, READ, REFUSED)
MANIFEST, WITHOUT_ROI = "manifest.parquet", "without_roi.parquet"

_BOX = pa.struct(
    [
        ("instance", pa.string()),
        ("frame", pa.int64()),
        *((name, pa.int64()) for name in ("x_min", "y_min", "x_max", "y_max")),
    ]
)
_SCHEMA = pa.schema(
    [
        ("instance", pa.string()),
        ("series", pa.string()),
        ("status", pa.string()),
        ("message", pa.string()),
        ("etag", pa.string()),
        ("frames", pa.int64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("device", pa.string()),
        ("source", pa.string()),  # of boxes: sr, pr
        ("boxes", pa.list_(_BOX)),
        ("not_boxes", pa.int64()),
        ("by_sonode", pa.bool_()),
    ]
)

Entry = dict[str, Any]
Entries = dict[str, Entry]
"""By the UID of the object."""


def new(instance: str, series: str, status: str, **facts: Any) -> Entry:
    """An entry; what is not given is null."""
    known = {"instance": instance, "series": series, "status": status, **facts}
    return {**dict.fromkeys(_SCHEMA.names), **known}


def study_folder(study: str) -> str:
    """Where the images of a study lie."""
    return f"objects/{_hash(study)}"


def object_name(study: str, instance: str) -> str:
    """Where an image lies."""
    return f"{study_folder(study)}/{_hash(instance)}.dcm"


def is_done(entry: Entry | None) -> bool:
    """Whether an object is not to be asked for again."""
    return entry is not None and entry["status"] != REFUSED


def read(out: str, study: str) -> tuple[Entries, str | None]:
    """The ledger of a study and its etag; nothing where there is none yet."""
    uri = _uri(out, study)
    try:
        found = objects.read(uri)
    except ObjectMissing:
        return {}, None
    try:
        table = results.parquet(found.data).read()
    except (pa.ArrowException, OSError):
        table = None
    if table is None or table.schema.remove_metadata() != _SCHEMA:
        raise UserError(f"{uri}: not a ledger of this sonode; remove it and re-run") from None
    return {row["instance"]: row for row in table.to_pylist()}, found.etag


def write(out: str, study: str, entries: Entries, etag: str | None) -> tuple[Entries, str | None]:
    """Write the ledger of a study, with what another pull has found meanwhile; as `read`."""
    while True:
        rows = [entries[uid] for uid in sorted(entries)]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink, write_page_checksum=True)
        if objects.update(_uri(out, study), sink.getvalue(), etag):
            return read(out, study)
        others, etag = read(out, study)
        done = {uid: it for uid, it in others.items() if is_done(it)}
        entries = {**others, **entries, **done}


def _uri(out: str, study: str) -> str:
    return objects.join(out, f"_pulled/{_hash(study)}.parquet")


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
