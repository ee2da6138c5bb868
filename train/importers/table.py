"""Cohorts from one table of labels: with boxes in it, or in LabelImg's files beside the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import Required, TypedDict, Unpack

from model_def.preprocessing import RoI
from sonode.boxes.labelimg import AnnotationError, read_voc, read_yolo
from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS
from train.cohorts.cohort import SCHEMA, Cohort
from train.importers.column_kinds import NUMBERS, further_columns
from train.importers.draft import Draft
from train.importers.import_warnings import PICTURES
from train.importers.label_rows import LABELS, box_in_row, has_boxes, read_id, read_labels
from train.importers.left_out import LeftOut
from train.importers.write_draft import write_draft
from train.tables.records import Records, read_records
from train.tables.values import FormatError, truth

_IDS = ("patient_id", "lesion_id", "image")
_NO_IMAGE = {"classes"}  # LabelImg's own list of class names, beside its YOLO files
Boxes = Callable[[Draft, dict[str, str], Path], list[RoI]]


class About(TypedDict, total=False):
    """What every importer of a table is given beside its places."""

    name: Required[str]
    drop_faulty: bool
    """As of `write_draft`."""
    kinds: Mapping[str, str] | None
    """Column -> kind."""


def import_csv(source: Path, out: Path, **about: Unpack[About]) -> Cohort:
    """One CSV or Parquet table -> cohort in `out`, images left where they are.

    Columns: patient_id and image (a path from the table's folder); as far as they are known
    lesion_id, malignant, alnm, n_nodes, device, and roi_x_min, roi_y_min, roi_x_max, roi_y_max
    (half-open, 0-based); ids that Parquet holds as floating numbers are written as the whole
    numbers they are. Any further column is carried along, as `kinds` says, `number` or `label`, or
    as `further_columns` finds. A blank alnm follows from n_nodes where that is known. Without roi
    columns the boxes come from files beside each image: `IMAGE.xml` (Pascal VOC), else `IMAGE.txt`
    (YOLO). Without a lesion_id each box of an image is a lesion of its own.

    Raises UserError: no such table, a column is absent or of another type, or faults.
    """
    records = read_records(source, ("patient_id", "image"))
    boxes = box_in_row if has_boxes(records, source) else _boxes_beside
    return _import(records, source.parent, boxes, out, source="table", left_out=LeftOut(), **about)


def import_voc(
    source: Path, out: Path, *, synthetic: bool = False, **about: Unpack[About]
) -> Cohort:
    """A folder with `images/`, LabelImg's `annotations/*.xml` and `labels.csv` -> cohort in `out`.

    `labels.csv` has one row per image: image, patient_id, lesion_id, malignant, alnm, n_nodes,
    device, and any further column as in `import_csv`; blanks are missing. An image with several
    boxes gives several lesions.

    Raises UserError: a file or column is absent, or the cohort has faults.
    """
    read = partial(_voc, report=not synthetic)
    return _import_labelimg(
        *(source, out, ".xml", read), source="LabelImg VOC", synthetic=synthetic, **about
    )


def import_yolo(source: Path, out: Path, **about: Unpack[About]) -> Cohort:
    """The layout of `import_voc` with YOLO's `annotations/*.txt` -> cohort in `out`.

    Raises UserError: a file or column is absent, or the cohort has faults.
    """
    return _import_labelimg(source, out, ".txt", _yolo, source="LabelImg YOLO", **about)


def _import_labelimg(
    folder: Path,
    out: Path,
    suffix: str,
    read: Callable[[Draft, Path, dict[str, str], Path], list[RoI]],
    *,
    source: str,
    synthetic: bool = False,
    **about: Unpack[About],
) -> Cohort:
    """`read` takes the boxes from a file in `annotations/`."""
    left_out = LeftOut()

    def boxes(draft: Draft, record: dict[str, str], image: Path) -> list[RoI]:
        return read(draft, folder / "annotations" / f"{image.stem}{suffix}", record, image)

    records = _labels(folder, suffix, left_out)
    return _import(
        *(records, folder / "images", boxes, out),
        source=source,
        left_out=left_out,
        synthetic=synthetic,
        **about,
    )


def _labels(source: Path, suffix: str, left_out: LeftOut) -> Records:
    """`labels.csv` of a LabelImg folder, where the boxes lie in files of their own.

    Box files without a row in it are left out, and reported.
    """
    if not (source / LABELS).is_file():
        raise UserError(f"SRC {source}: has no {LABELS}, which lists one image per row")
    wanted = ["image", *(c for c in SCHEMA.names if c not in ("image", *ROI_COLUMNS))]
    records = read_records(source / LABELS, wanted)
    if set(ROI_COLUMNS) & set(records.columns):
        raise UserError(f"SRC {LABELS}: has box columns; use `sonode import csv`")
    listed = {Path(record["image"]).stem for record in records.rows} | _NO_IMAGE
    folder = source / "annotations"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    left_out.files(
        f"box files have no row in {LABELS}",
        [path for path in found if path.suffix.lower() == suffix and path.stem not in listed],
    )
    left_out.files(
        f"files in annotations are no {suffix}", [path for path in found if path.suffix != suffix]
    )
    images = source / "images"
    rows = {PurePath(record["image"]) for record in records.rows}
    left_out.images(
        f"images have no row in {LABELS}",
        [
            path
            for path in images.rglob("*")
            if path.suffix.lower() in PICTURES and path.relative_to(images) not in rows
        ],
    )
    return records


def _import(
    records: Records,
    images: Path,
    boxes: Boxes,
    out: Path,
    *,
    name: str,
    source: str,
    left_out: LeftOut,
    synthetic: bool = False,
    drop_faulty: bool = False,
    kinds: Mapping[str, str] | None = None,
) -> Cohort:
    further = further_columns(records, SCHEMA.names, kinds)
    draft = Draft(out, {column: float if it in NUMBERS else str for column, it in further.items()})
    draft.left_out = left_out
    boxes_of: Counter[str] = Counter()
    for place, row in zip(records.places, records.rows, strict=True):
        record = row | {it: read_id(draft, records, row, it) for it in _IDS if it in row}
        image = images / record["image"]
        found: list[RoI] = []
        try:
            if record["image"]:
                found = boxes(draft, record, image)
        except AnnotationError as error:
            draft.fault("roi", str(error))
        values = read_labels(draft, record, further)
        if not (lesion := record.get("lesion_id")):
            # Each box of an image is a lesion of its own, in a file beside it and in rows alike.
            times = boxes_of[record["image"]]
            lesion = record["image"] + (f"_{times}" if times else "")
            boxes_of[record["image"]] += max(1, len(found))
        draft.add(place, image, found, patient_id=record["patient_id"], lesion_id=lesion, **values)
    return write_draft(
        draft, name=name, source=source, synthetic=synthetic, drop_faulty=drop_faulty
    )


def _boxes_beside(draft: Draft, record: dict[str, str], image: Path) -> list[RoI]:
    if (path := image.with_suffix(".xml")).is_file():
        if image.with_suffix(".txt").is_file():
            draft.note("images have an .xml and a .txt beside them: the .xml counts")
        return _voc(draft, path, record, image)
    if (path := image.with_suffix(".txt")).is_file():
        return _yolo(draft, path, record, image)
    draft.fault("roi", f"no {image.stem}.xml or .txt beside the image, and no roi columns")
    return []


def _voc(
    draft: Draft, path: Path, record: dict[str, str], image: Path, *, report: bool = True
) -> list[RoI]:
    """Boxes of a Pascal VOC file, whose frame must be the image's."""
    found = read_voc(path)
    draft.drawn_in(path, found.size)
    _named(draft, path, record, found.names)
    if found.image not in ("", image.stem):
        draft.note(
            "box files have another image's name in `filename`, as after renaming; they are used "
            "for the image with the box file's own name"
        )
    if report:
        draft.note(
            "box files are read as VOC defines them, as numbers of pixels from 1"
            if found.by_the_letter
            else "box files are read as by LabelImg, as borders between pixels from 0"
        )
    return [RoI(*box) for box in found.boxes]


def _yolo(draft: Draft, path: Path, record: dict[str, str], image: Path) -> list[RoI]:
    """Boxes of a YOLO file; they need the frame's size."""
    draft.drawn_in(path)
    pixels = draft.pixels(image)
    if pixels is None:
        return []
    height, width = pixels.shape
    found = read_yolo(path, (width, height))
    _named(draft, path, record, [f"class {number}" for number in found.classes])
    if found.outlines:
        draft.note("boxes are those around an outline of points", found.outlines)
    if found.confidences:
        draft.note(
            "boxes have a sixth number, read as a confidence and not used", found.confidences
        )
    return [RoI(*box) for box in found.boxes]


def _named(draft: Draft, path: Path, record: dict[str, str], names: list[str]) -> None:
    """Note the classes of boxes; one that says malignant or benign is to agree with the table."""
    labels = ("benign", "malignant")
    draft.classes[path.suffix].update(name for name in names if name.lower() not in labels)
    try:
        malignant = truth(record.get("malignant", ""))
    except FormatError:  # a fault already
        malignant = None
    for place, name in enumerate(names, start=1):
        if malignant is not None and name.lower() == labels[not malignant]:
            what = f"is {record['malignant']}, and {path.name} names object {place} {name.lower()}"
            draft.fault("malignant", f"{what}; correct one of them")
