"""The ledgers of the studies -> the manifest, and the images that no RoI is known of.

A manifest's row has UIDs and the device, and neither a name, an id nor a date: what scoring and a
later reader need to find the image again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

import pyarrow as pa

from batch.dicom.ledger_file import Entry
from batch.dicom.pulling import ledger
from batch.dicom.pulling.given_boxes import Given, GivenBox
from batch.dicom.pulling.ledger import Entries
from batch.storage import objects
from sonode.files.parquet import ROI_COLUMNS, file_bytes

NO_BOX = "no_box"
"""Why there is no RoI: nobody has drawn one."""
FRAME_UNKNOWN = "frame_not_named"
"""A loop's box on no frame: on most of its frames the lesion is elsewhere."""
FRAME_OUTSIDE = "frame_outside_loop"
OUTSIDE = "box_outside_image"
OTHER_SIZE = "drawn_on_another_size"

_IMAGE = [
    ("image_uri", pa.string()),
    ("etag", pa.string()),
    ("study_uid", pa.string()),
    ("series_uid", pa.string()),
    ("instance_uid", pa.string()),
    ("device", pa.string()),
    ("frames", pa.int64()),
]
_WITH = pa.schema(
    [
        *_IMAGE,
        ("frame", pa.int64()),
        *((name, pa.int64()) for name in ROI_COLUMNS),
        ("roi_source", pa.string()),
    ]
)
_WITHOUT = pa.schema([*_IMAGE, ("reason", pa.string())])


class Rows(NamedTuple):
    """What a study gives."""

    with_roi: pa.Table
    without_roi: pa.Table
    not_used: dict[str, int]
    """Boxes by the reason why they are in no row."""


def rows_of(study: str, named: Collection[str], entries: Entries, given: Given) -> Rows:
    """The rows of the objects that the PACS names, in the order of their UIDs.

    The user's boxes of an image take the place of those that an SR or a state draws on it.
    """
    drawn: Given = {}
    for report in (entries[uid] for uid in sorted(named) if uid in entries):
        for it in report["boxes"] or ():
            box = (it["x_min"], it["y_min"], it["x_max"], it["y_max"])
            one = GivenBox(it["frame"], box, report["source"], None)
            drawn.setdefault(it["instance"], []).append(one)
    with_roi, without = [], []
    not_used: Counter[str] = Counter()
    for uid in sorted(set(named)):
        entry = entries.get(uid)
        if entry is None or entry["status"] != ledger.PULLED:
            continue
        image = {
            "image_uri": ledger.object_name(study, uid),
            "study_uid": study,
            "series_uid": entry["series"],
            "instance_uid": uid,
            **{name: entry[name] for name in ("etag", "device", "frames")},
        }
        rois: dict[Any, str] = {}
        reasons = []
        for one in given.get(uid, drawn.get(uid, [])):
            if reason := _fault(one, entry):
                reasons.append(reason)
            else:
                rois.setdefault((one.frame if entry["frames"] > 1 else None, one.box), one.source)
        not_used.update(reasons)
        with_roi += [
            {**image, "frame": frame, "roi_source": source}
            | dict(zip(ROI_COLUMNS, box, strict=True))
            for (frame, box), source in rois.items()
        ]
        if not rois:
            without.append({**image, "reason": reasons[0] if reasons else NO_BOX})
    return Rows(
        pa.Table.from_pylist(with_roi, schema=_WITH),
        pa.Table.from_pylist(without, schema=_WITHOUT),
        dict(not_used),
    )


def _fault(it: GivenBox, image: Entry) -> str | None:
    """Why a box is no RoI of an image."""
    x_min, y_min, x_max, y_max = it.box
    if it.size not in (None, (image["width"], image["height"])):
        return OTHER_SIZE
    if not (0 <= x_min < x_max <= image["width"] and 0 <= y_min < y_max <= image["height"]):
        return OUTSIDE
    if it.frame is None:
        return FRAME_UNKNOWN if image["frames"] > 1 else None
    return None if 0 <= it.frame < image["frames"] else FRAME_OUTSIDE


def table(studies: Collection[Rows]) -> pa.Table:
    """The manifest of some studies."""
    return pa.concat_tables([_WITH.empty_table(), *(it.with_roi for it in studies)])


def write(out: str, studies: Collection[Rows]) -> pa.Table:
    """Write both tables, the manifest last; give the manifest."""
    without = pa.concat_tables([_WITHOUT.empty_table(), *(it.without_roi for it in studies)])
    objects.write(objects.join(out, ledger.WITHOUT_ROI), file_bytes(without))
    made = table(studies)
    objects.write(objects.join(out, ledger.MANIFEST), file_bytes(made))
    return made


def counts(studies: Collection[Rows]) -> dict[str, Any]:
    """What the tables and the boxes come to."""
    sources, without, not_used = Counter[str](), Counter[str](), Counter[str]()
    for it in studies:
        sources.update(it.with_roi["roi_source"].to_pylist())
        without.update(it.without_roi["reason"].to_pylist())
        not_used.update(it.not_used)
    return {
        "rows": sources.total(),
        "roi_sources": dict(sorted(sources.items())),
        "without_roi": dict(sorted(without.items())),
        "boxes_not_used": dict(sorted(not_used.items())),
    }
