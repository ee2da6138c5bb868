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
from typing import Any

import pyarrow as pa

from batch.dicom.ledger_file import Entry, LedgerFile
from batch.storage import objects

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


def of_study(out: str, study: str) -> LedgerFile:
    """The ledger of a study. Raises as LedgerFile does."""
    uri = objects.join(out, f"_pulled/{_hash(study)}.parquet")
    return LedgerFile(uri, _SCHEMA, "instance", is_done)


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
