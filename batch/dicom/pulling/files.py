"""A file's bytes -> what the ledger keeps of it. No name, id or date of a patient is read."""

from __future__ import annotations

import io
from typing import NamedTuple

import pydicom

from batch.dicom.peers.answers import Instance, Refused
from sonode.boxes import dicom_rois

_MAX_DEVICE = 64  # of each of its two names (LO, PS3.5, 6.2)
_READ = [
    "SpecificCharacterSet",
    "SOPInstanceUID",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "Rows",
    "Columns",
    "NumberOfFrames",
]


class Facts(NamedTuple):
    """Of an object; the numbers are those of an image."""

    is_image: bool
    modality: str
    frames: int
    width: int
    height: int
    device: str | None
    """Manufacturer and model."""


def facts(data: bytes, it: Instance) -> Facts:
    """Read a file. Raises Refused where it is not the object that was asked for."""
    try:
        read = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=_READ)
        width, height = int(read.get("Columns") or 0), int(read.get("Rows") or 0)
        frames = int(read.get("NumberOfFrames") or 1)
        names = [str(read.get(it) or "") for it in ("Manufacturer", "ManufacturerModelName")]
        uid, modality = (str(read.get(it) or "") for it in ("SOPInstanceUID", "Modality"))
    except Exception:  # pydicom raises many types on damaged files
        raise Refused("its header cannot be read") from None
    if uid != it.instance:
        raise Refused("the PACS sent another object in its place")
    device = " ".join(" ".join(name.split())[:_MAX_DEVICE] for name in names if name.strip())
    return Facts(bool(width and height), modality, frames, width, height, device or None)


def drawings(data: bytes) -> dicom_rois.Drawings:
    """Read an SR or a presentation state. Raises Refused where it cannot be read."""
    try:
        return dicom_rois.read(pydicom.dcmread(io.BytesIO(data)))
    except Exception:  # pydicom raises many types on damaged files
        raise Refused("its drawings cannot be read") from None
