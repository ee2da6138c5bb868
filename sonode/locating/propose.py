"""A manifest without boxes -> a manifest with proposed RoIs, a row for each row.

A row that has a RoI keeps it, and its image is not read. Every other row gets the image's surest
proposal, or `none_found`, or what the image failed with, and then no RoI: `sonode score` does not
score it on its whole frame.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from batch.manifest import checks
from batch.manifest.files import CHECKED_TOGETHER
from batch.manifest.read import Manifest, Request, open_manifest, requests
from batch.storage import checks as storage_checks
from batch.storage import objects
from batch.storage.errors import ObjectExists, StorageError
from model_def.images.decode import decode
from model_def.images.errors import RowError
from model_def.images.frame import Frame
from model_def.limits import MAX_DICOM_BYTES
from model_def.preprocessing import RoI
from sonode.console import UserError, progress
from sonode.files.parquet import ROI_COLUMNS, file_bytes
from sonode.locating.detector import Locator, proposals, read

GIVEN = "given"
"""What a row counts as that has kept its RoI."""
COLUMNS = pa.schema(
    [
        pa.field("roi_proposed", pa.bool_()),
        pa.field("roi_confidence", pa.float64()),
        pa.field("locate_status", pa.string()),
        pa.field("locate_code", pa.string()),
        pa.field("locate_message", pa.string()),
        pa.field("locator_sha256", pa.string()),
    ]
)
_THREADS = 8

Row = dict[str, Any]


def propose(
    locator_folder: Path, manifest_uri: str, out_uri: str, *, min_confidence: float | None = None
) -> Counter[str]:
    """Write the manifest to `out_uri`, whole or not at all; how many rows are of each status.

    Rows that kept their RoI count as `GIVEN`. `min_confidence`: other than the locator's own.
    Relative image_uris become absolute where `out_uri` lies in another folder.

    Raises UserError: no locator, a faulty manifest, or storage that cannot be used; `out_uri`
    exists.
    """
    locator = read(locator_folder)
    if min_confidence is None:
        min_confidence = locator.card.min_confidence
    out = objects.absolute(out_uri)
    try:
        if objects.exists(out):
            raise ObjectExists
        with open_manifest(manifest_uri, reserved=COLUMNS.names) as manifest:
            for bucket in manifest.buckets:
                storage_checks.check_bucket(bucket)
            rows = list(_rows(locator, manifest, min_confidence))
            table = _with(manifest, rows, keep_uris=objects.parent(out) == manifest.folder)
        facts = {"locator_sha256": locator.sha256, "min_confidence": min_confidence}
        about = {"sonode_locate": json.dumps(facts)}
        objects.create(out, file_bytes(table.replace_schema_metadata(about)))
    except ObjectExists:
        raise UserError(f"OUT {out_uri}: exists; give a new file") from None
    except StorageError as error:
        raise UserError(f"OUT {out_uri}: cannot be written: {error}") from None
    return Counter(
        GIVEN
        if row["locate_status"] == checks.LOCATED and not row["roi_proposed"]
        else str(row["locate_status"])
        for row in rows
    )


def _rows(locator: Locator, manifest: Manifest, min_confidence: float) -> Iterator[Row]:
    """What comes of each row, in order: `roi`, and the columns of `COLUMNS`."""
    with ThreadPoolExecutor(_THREADS, "fetch") as threads:
        waiting: deque[tuple[Request, Future[Frame | Row] | None]] = deque()

        def settled() -> Row:
            request, future = waiting.popleft()
            if future is None:
                return _row(checks.LOCATED, roi=[*map(int, request.fields["roi"].split(","))])
            found = future.result()
            return _located(locator, found, min_confidence) if isinstance(found, Frame) else found

        def rows() -> Iterator[Row]:
            for table in manifest.tables(CHECKED_TOGETHER):
                for request in requests(table, manifest.folder):
                    drawn = "roi" in request.fields
                    waiting.append((request, None if drawn else threads.submit(_frame, request)))
                    if len(waiting) > 2 * _THREADS:
                        yield settled()
            while waiting:
                yield settled()

        yield from progress(rows(), total=max(1, manifest.rows), what="images")


def _frame(request: Request) -> Frame | Row:
    """The image's frame, read as it will be scored; a row is its failure."""
    try:
        data = objects.read(request.image_uri, request.etag, MAX_DICOM_BYTES).data
        frame = request.fields.get("frame")
        return decode(data, None if frame is None else int(frame))
    except UserError:
        raise
    except (StorageError, RowError) as error:
        return _row(checks.NOT_LOCATED, code=error.code, message=str(error))
    except Exception as error:  # of any kind: its text may hold anything
        message = f"reading the image raised {type(error).__name__}"
        return _row(checks.NOT_LOCATED, code="preprocess_failed", message=message)


def _located(locator: Locator, frame: Frame, min_confidence: float) -> Row:
    """The surest proposal, within the one tissue region of a DICOM file where it states one."""
    height, width = frame.grey_HW.shape
    inside = frame.tissue or RoI(0, 0, width, height)
    pixels = frame.grey_HW[inside.y_min : inside.y_max, inside.x_min : inside.x_max]
    found = proposals(locator.detector, pixels, locator.card.size)
    if not found or found[0].confidence < min_confidence:
        return _row(checks.NONE_FOUND, sha256=locator.sha256)
    x0, y0, x1, y1 = found[0].roi
    x, y = inside.x_min, inside.y_min
    return _row(
        checks.LOCATED,
        roi=[x0 + x, y0 + y, x1 + x, y1 + y],
        confidence=found[0].confidence,
        sha256=locator.sha256,
    )


def _row(
    status: str,
    *,
    roi: list[int] | None = None,
    confidence: float | None = None,
    code: str | None = None,
    message: str | None = None,
    sha256: str | None = None,
) -> Row:
    return {
        "roi": roi,
        "roi_proposed": confidence is not None,
        "roi_confidence": confidence,
        "locate_status": status,
        "locate_code": code,
        "locate_message": message,
        "locator_sha256": sha256,
    }


def _with(manifest: Manifest, rows: list[Row], *, keep_uris: bool) -> pa.Table:
    """The manifest's columns with the RoIs in its own form, and `COLUMNS`."""
    table = pa.concat_tables(manifest.tables(CHECKED_TOGETHER))
    if not keep_uris:
        uris = [request.image_uri for request in requests(table, manifest.folder)]
        place = table.column_names.index("image_uri")
        table = table.set_column(place, "image_uri", pa.array(uris, pa.string()))
    rois = [row["roi"] for row in rows]
    if "roi" in table.column_names:
        place = table.column_names.index("roi")
        table = table.set_column(place, "roi", pa.array(rois, pa.list_(pa.int64())))
    else:
        table = table.drop_columns([it for it in ROI_COLUMNS if it in table.column_names])
        for place, name in enumerate(ROI_COLUMNS):
            edges = [None if roi is None else roi[place] for roi in rois]
            table = table.append_column(name, pa.array(edges, pa.int64()))
    found = pa.Table.from_pylist([{it: row[it] for it in COLUMNS.names} for row in rows], COLUMNS)
    for name in COLUMNS.names:
        table = table.append_column(name, found[name])
    return table
