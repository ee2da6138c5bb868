"""Boxes that the user has: a table (CSV or Parquet), or a folder of LabelImg's XML files.

The table has `instance_uid`, the RoI in the columns of a manifest, and `frame` for loops. An XML
file is named by the image's SOPInstanceUID, or UID-FRAME for a loop, FRAME from 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
from pydicom.uid import UID

from batch.manifest import checks, column_types
from batch.results import schema as results
from batch.storage import objects
from batch.storage.errors import as_user_error
from sonode.boxes.dicom_rois import Box
from sonode.console import UserError, counted, first_of
from sonode.files.parquet import ROI_COLUMNS

TABLE, LABELIMG = "table", "labelimg"
_UID = "instance_uid"
_CSV = pyarrow.csv.ConvertOptions(
    column_types={_UID: pa.string(), "frame": pa.int64()} | dict.fromkeys(ROI_COLUMNS, pa.float64())
)


class GivenBox(NamedTuple):
    """A box that the user gives."""

    frame: int | None
    box: Box
    source: str
    size: tuple[int, int] | None
    """Width and height of the image that it was drawn on, where known."""


Given = dict[str, list[GivenBox]]
"""By the SOPInstanceUID of the image."""


def read(uri: str, option: str = "--boxes") -> Given:
    """Read what an option gives. Raises UserError with every fault at once."""
    if not objects.is_s3(uri) and Path(uri).is_dir():
        return _of_folder(Path(uri), option)
    with as_user_error(f"{option} {uri}"):
        data = objects.read(uri).data
    try:
        if data[:4] == b"PAR1":
            table = results.parquet(data).read()
        else:
            table = pyarrow.csv.read_csv(pa.BufferReader(data), convert_options=_CSV)
    except (pa.ArrowException, OSError):
        raise UserError(
            f"{option} {uri}: neither Parquet nor a CSV of numbers; write it again"
        ) from None
    return _of_table(f"{option} {uri}", table)


def _of_table(where: str, table: pa.Table) -> Given:
    names = table.column_names
    if missing := [it for it in (_UID, *ROI_COLUMNS) if it not in names]:
        raise UserError(f"{where}: no column {missing[0]!r}; add it")
    kept = table.select([it for it in (_UID, "frame", *ROI_COLUMNS) if it in names])
    for name in kept.column_names:
        kind = kept.schema.field(name).type
        sound = (
            column_types.is_text(kind)
            if name == _UID
            else column_types.is_number(kind, or_null=True)
        )
        if not sound:
            raise UserError(f"{where}: column {name!r} holds {kind}")
    faults = list(checks.row_problems(kept, ""))
    given: Given = {}
    for number, row in enumerate(kept.to_pylist()):
        box = [row[name] for name in ROI_COLUMNS]
        if not row[_UID] or None in box:
            faults.append(f"row {number}: {_UID} or the box is missing; give both")
        elif not faults:
            frame = None if row.get("frame") is None else int(row["frame"])
            x0, y0, x1, y1 = map(int, box)
            drawn = GivenBox(frame, (x0, y0, x1, y1), TABLE, None)
            given.setdefault(row[_UID].strip(), []).append(drawn)
    _refuse(where, faults)
    return given


def _of_folder(folder: Path, option: str) -> Given:
    from sonode.boxes import labelimg

    given: Given = {}
    faults = []
    files = sorted(folder.glob("*.xml"))
    for number, path in enumerate(files):  # by number: a name may be a patient's
        uid, _, frame = path.stem.partition("-")
        if not UID(uid).is_valid or not (frame.isdigit() or "-" not in path.stem):
            faults.append(f"file {number}: not named UID.xml or UID-FRAME.xml; rename it")
            continue
        try:
            drawn = labelimg.read_voc(path)
        except labelimg.AnnotationError as error:
            faults.append(f"file {number}: {str(error).removeprefix(f'{path.name}: ')}")
            continue
        width, height = drawn.size
        size = (width, height) if width and height else None
        given.setdefault(uid, []).extend(
            GivenBox(int(frame) if frame else None, (*box,), LABELIMG, size) for box in drawn.boxes
        )
    if not files:
        faults.append("no file NAME.xml; give LabelImg's folder, or a table")
    _refuse(f"{option} {folder}", faults)
    return given


def _refuse(where: str, faults: list[str]) -> None:
    if faults:
        raise UserError(
            f"{where}: {counted(len(faults), 'fault')} to correct before anything is pulled "
            "(the first is 0)",
            first_of(faults, len(faults)),
        )
