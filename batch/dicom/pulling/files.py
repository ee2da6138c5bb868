"""A file's bytes -> what the ledger keeps of it. No name, id or date of a patient is read."""

from __future__ import annotations

import io
from typing import NamedTuple

import pydicom

from batch.dicom.peers.answers import Instance, Refused
from sonode import dicom_device
from sonode.boxes import dicom_rois

_READ = [
    "SpecificCharacterSet",
    "SOPInstanceUID",
    "Modality",
    *dicom_device.KEYWORDS,
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
        device = dicom_device.device_name(read)
        uid, modality = (str(read.get(it) or "") for it in ("SOPInstanceUID", "Modality"))
    except Exception:  # pydicom raises many types on damaged files
        raise Refused("its header cannot be read") from None
    if uid != it.instance:
        raise Refused("the PACS sent another object in its place")
    return Facts(bool(width and height), modality, frames, width, height, device or None)


def drawings(data: bytes) -> dicom_rois.Drawings:
    """Read an SR or a presentation state. Raises Refused where it cannot be read."""
    try:
        return dicom_rois.read(pydicom.dcmread(io.BytesIO(data)))
    except Exception:  # pydicom raises many types on damaged files
        raise Refused("its drawings cannot be read") from None
