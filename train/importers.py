"""From what others store to the one cohort format."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from model_def.preprocessing import RoI
from sonode_console import UserError, progress, say
from train.cohort import ROI_COLUMNS, SCHEMA, Cohort, load_cohort, read_image, write_cohort
from train.labelimg import AnnotationError, read_voc

LABELS = "labels.csv"
_TRUTH = {"": None, "0": False, "1": True, "false": False, "true": True}


def import_voc(source: Path, out: Path, *, name: str, synthetic: bool = False) -> Cohort:
    """A folder with `images/`, LabelImg's `annotations/*.xml` and `labels.csv` -> cohort in `out`.

    `labels.csv` has one row per image: image, patient_id, lesion_id, malignant, alnm, n_nodes,
    device; blanks are missing. An image with several boxes gives several lesions.

    Raises:
        UserError: a file or column is absent, a value unreadable, or the cohort has faults.
    """
    path = source / LABELS
    if not path.is_file():
        raise UserError(f"SRC {source}: holds no {LABELS}; it lists one image per row")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        wanted = ["image", *(c for c in SCHEMA.names if c not in ("image", *ROI_COLUMNS))]
        absent = [column for column in wanted if column not in (reader.fieldnames or [])]
        if absent:
            raise UserError(
                f"SRC {LABELS}: no column {', '.join(absent)}; add it, blank if unknown"
            )
        records = list(reader)
    rows: list[dict[str, object]] = []
    faults: list[str] = []
    for number, record in enumerate(records):
        try:
            boxes: list[RoI | None] = [
                *read_voc(source / "annotations" / f"{Path(record['image']).stem}.xml")
            ]
            labels = _labels(record)
        except AnnotationError as error:
            faults.append(f"{LABELS} row {number}, image: {error}")
            continue
        except ValueError as error:
            faults.append(f"{LABELS} row {number}, {error}")
            continue
        image = _reference(source / "images" / record["image"], out)
        for order, box in enumerate(boxes or [None]):
            lesion = record["lesion_id"] + (f"_{order}" if order else "")
            rows.append(
                {
                    "patient_id": record["patient_id"],
                    "lesion_id": lesion,
                    "image": image,
                    **labels,
                    "device": record["device"] or None,
                    **_corners(box),
                }
            )
    return _finish(out, rows, faults, name=name, source="LabelImg VOC", synthetic=synthetic)


def _labels(record: dict[str, str]) -> dict[str, bool | int | None]:
    """The three labels of one row; blanks are None. Raises ValueError naming the field."""
    labels: dict[str, bool | int | None] = {}
    for field in ("malignant", "alnm"):
        text = record[field].strip().lower()
        if text not in _TRUTH:
            raise ValueError(f"{field}: give 1, 0, true, false or blank")
        labels[field] = _TRUTH[text]
    try:
        labels["n_nodes"] = int(text) if (text := record["n_nodes"].strip()) else None
    except ValueError:
        raise ValueError("n_nodes: give a whole number or blank") from None
    return labels


def import_busi(source: Path, out: Path) -> Cohort:
    """BUSI's class folders and masks -> cohort in `out`, images left where they are.

    (Al-Dhabyani et al. 2020, Data in Brief 28:104863.) One row per mask: its bounding box is the
    RoI. Malignancy comes from the folder; ALNM and node counts are not in the set and stay
    missing. There is no patient id either: each image counts as a patient, images with equal
    pixels as one. `normal` images have no lesion and are left out.

    Raises:
        UserError: not the layout of BUSI, or the cohort has faults.
    """
    folders = [source / "benign", source / "malignant"]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"SRC {source}: no folder `{folder.name}`; give BUSI's top folder")
    images = [
        p for folder in folders for p in sorted(folder.glob("*.png")) if "_mask" not in p.stem
    ]
    rows: list[dict[str, object]] = []
    faults: list[str] = []
    first_of: dict[str, str] = {}
    for path in progress(images, total=len(images), what="reading masks"):
        stem = f"busi_{path.parent.name}_{''.join(re.findall(r'[0-9]+', path.stem))}"
        masks = sorted(path.parent.glob(f"{path.stem}_mask*.png"))
        try:
            digest = hashlib.sha256(read_image(path).tobytes()).hexdigest()
            boxes = [mask_box(read_image(mask)) for mask in masks]
        except OSError:
            faults.append(f"{path.name}: the image or a mask of it is not readable")
            continue
        for order, box in enumerate(boxes or [None]):
            rows.append(
                {
                    "patient_id": first_of.setdefault(digest, stem),
                    "lesion_id": f"{stem}_{order}",
                    "image": _reference(path, out),
                    "malignant": path.parent.name == "malignant",
                    "alnm": None,
                    "n_nodes": None,
                    "device": None,
                    **_corners(box),
                }
            )
    repeated = len(images) - len(first_of) - len(faults)
    if repeated:
        say(f"{repeated} images repeat the pixels of another and share its patient id")
    return _finish(out, rows, faults, name="BUSI", source="BUSI", synthetic=False)


def mask_box(mask_HW: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> RoI | None:
    """The bounding box of the non-zero pixels, half-open; None where all are zero."""
    rows, columns = np.nonzero(mask_HW)
    if rows.size == 0:
        return None
    return RoI(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def _corners(box: RoI | None) -> dict[str, int | None]:
    return dict(zip(ROI_COLUMNS, box or (None,) * 4, strict=True))


def _reference(image: Path, out: Path) -> str:
    """The image relative to the cohort where it lies inside it, else its absolute path."""
    image, out = image.resolve(), out.resolve()
    return str(image.relative_to(out) if image.is_relative_to(out) else image)


def _finish(
    out: Path,
    rows: list[dict[str, object]],
    faults: Iterable[str],
    *,
    name: str,
    source: str,
    synthetic: bool,
) -> Cohort:
    """Write the cohort and load it with all checks; what is refused is not left behind."""
    faults = list(faults)
    if faults:
        raise UserError(f"SRC: {len(faults)} faults; correct them and import again", faults)
    frame = pd.DataFrame(rows, columns=SCHEMA.names)
    path = write_cohort(out, frame, name=name, source=source, synthetic=synthetic)
    try:
        return load_cohort(out)
    except UserError:
        path.unlink()
        raise
