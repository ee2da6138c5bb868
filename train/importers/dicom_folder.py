"""A folder of DICOM files -> what each image's header says, and the boxes drawn on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset

from model_def.images.dicom.file import is_dicom
from model_def.preprocessing import RoI
from sonode import dicom_device
from sonode.boxes import dicom_rois
from sonode.console import progress
from train.tables.values import age_string

_HEADER = [
    "SOPInstanceUID",
    "PatientID",
    "PatientAge",
    *dicom_device.KEYWORDS,
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelSpacing",
    "SequenceOfUltrasoundRegions",
]
_CM = 3
"""PhysicalUnitsXDirection and PhysicalUnitsYDirection of a length (PS3.3, C.8.5.5.1.15)."""


class Region(NamedTuple):
    """A calibrated part of a frame."""

    box: RoI
    width_mm: float
    """Of one pixel."""
    height_mm: float


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An image and what its header says; None or "" where it does not."""

    path: Path
    uid: str
    """SOPInstanceUID."""
    frames: int
    patient: str
    """PatientID."""
    device: str
    """Manufacturer and model."""
    age: float | None
    """In years."""
    spacing: tuple[float, float] | None
    """Width and height in mm of a pixel, wherever it is."""
    regions: tuple[Region, ...]

    def pixel_mm(self, box: RoI) -> tuple[float, float] | None:
        """Width and height of a pixel in a box, in mm; None where the header has no single one.

        By the one calibrated region that holds the box, or by PixelSpacing where there is none at
        all.
        """
        if not self.regions:
            return self.spacing
        holding = {
            (it.width_mm, it.height_mm)
            for it in self.regions
            if it.box.x_min <= box.x_min
            and it.box.y_min <= box.y_min
            and box.x_max <= it.box.x_max
            and box.y_max <= it.box.y_max
        }
        return holding.pop() if len(holding) == 1 else None


@dataclass(frozen=True)
class DicomFolder:
    """The DICOM files of a folder."""

    images: dict[str, list[Instance]] = field(default_factory=lambda: defaultdict(list))
    """By SOPInstanceUID; several files may claim one."""
    boxes: dict[str, list[dicom_rois.DrawnBox]] = field(default_factory=lambda: defaultdict(list))
    """What SRs and presentation states draw on each image, each box once."""
    not_boxes: int = 0
    """How many drawings enclose nothing."""
    damaged: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    """Files that are no image and draw no box."""


def read_folder(source: Path) -> DicomFolder:
    """Read the header of each file below a folder, in the order of their paths."""
    found = DicomFolder()
    lines = 0
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.name[0] != ".")
    for path in progress(files, total=len(files), what="reading headers"):
        with path.open("rb") as file:
            if not is_dicom(file.read(256)):
                found.others.append(path)
                continue
        try:
            header = pydicom.dcmread(
                path, force=True, stop_before_pixels=True, specific_tags=_HEADER
            )
            if "Rows" in header:
                found.images[str(header.get("SOPInstanceUID") or "")].append(
                    _instance(path, header)
                )
                continue
            whole = pydicom.dcmread(path, force=True)
            if _is_cut_image(whole):
                found.damaged.append(path)
                continue
            drawings = dicom_rois.read(whole)
            lines += drawings.not_boxes
            if not drawings.boxes and not drawings.by_sonode:
                found.others.append(path)
            for drawn in drawings.boxes:
                if drawn not in found.boxes[drawn.instance]:
                    found.boxes[drawn.instance].append(drawn)
        except Exception:  # pydicom raises many types on damaged files
            found.damaged.append(path)
    return DicomFolder(found.images, found.boxes, lines, found.damaged, found.others)


def _is_cut_image(whole: Dataset) -> bool:
    """Whether a data set that has no pixels should have some, or ends before it says what it is."""
    kind = str(whole.get("SOPClassUID") or "")
    return "Image Storage" in uid.UID(kind).name or not (kind or "DirectoryRecordSequence" in whole)


def _instance(path: Path, header: Dataset) -> Instance:
    regions = tuple(_regions(header))
    # Files exist whose regions exceed the frame: it was scaled, and what they say no longer holds.
    scaled = not all(it.box.lies_inside(header.Columns, header.Rows) for it in regions)
    spacing = header.get("PixelSpacing")  # of rows, then of columns (PS3.3, 10.7.1.3)
    known = not scaled and spacing is not None and len(spacing) == 2 and min(spacing) > 0
    return Instance(
        path=path,
        uid=str(header.get("SOPInstanceUID") or ""),
        frames=int(header.get("NumberOfFrames") or 1),
        patient=str(header.get("PatientID") or "").strip(),
        device=dicom_device.device_name(header),
        age=age_string(str(header.get("PatientAge") or "")),
        spacing=(float(spacing[1]), float(spacing[0])) if known else None,
        regions=() if scaled else regions,
    )


def _regions(header: Dataset) -> Iterator[Region]:
    """The regions whose pixels have a length in both directions (PS3.3, C.8.5.5)."""
    for item in header.get("SequenceOfUltrasoundRegions") or ():
        corners = [
            item.get(f"RegionLocation{corner}") for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1")
        ]
        units = {item.get(f"PhysicalUnits{axis}Direction") for axis in "XY"}
        deltas = [item.get(f"PhysicalDelta{axis}") for axis in "XY"]
        if units != {_CM} or None in corners or not all(deltas):
            continue
        x_min, y_min, x_max, y_max = (int(corner) for corner in corners)
        width, height = (10 * abs(float(delta)) for delta in deltas)  # negative: it runs upwards
        yield Region(RoI(x_min, y_min, x_max + 1, y_max + 1), width, height)
