"""A DICOM file's bytes -> one stored frame, within limits; only that frame is decoded.

pydicom parses, and decodes where a frame is neither native, RLE nor JPEG of 8 bits. Of the header
only the tags of `header` are kept: names and ids never leave the file's bytes, and neither
messages nor logs quote a value.

An error that leaves one meaning is accepted with a warning that says what was assumed. What can be
read in two ways is refused, with the tag's name.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pydicom
from PIL import Image

from model_def.images.dicom.decoders import decode_frame
from model_def.images.dicom.file import read
from model_def.images.dicom.header import code, frame_number, read_header
from model_def.images.dicom.values import displayed
from model_def.images.errors import ImageTooLarge, RowError, UnreadableImage
from model_def.images.frame import Frame
from model_def.limits import MAX_DICOM_BYTES
from model_def.preprocessing import RoI

# Both quote values of the file, patients' names among them.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom\.")


def decode(data: bytes, frame: int | None) -> Frame:
    """Frame number `frame` (from 0); a file of several frames needs one.

    Raises ImageTooLarge, UnsupportedImage, MissingDecoder, UnreadableImage, InvalidFrame: with the
    limit, what is taken, or the number of frames.
    """
    if len(data) > MAX_DICOM_BYTES:
        raise ImageTooLarge(
            f"image: {len(data)} bytes; the limit is {MAX_DICOM_BYTES}; give fewer frames"
        )
    try:
        return _decode(data, frame)
    except RowError:
        raise
    except Exception:  # pydicom raises many types on damaged files
        raise UnreadableImage(
            "image: damaged or incomplete DICOM; give the complete file"
        ) from None


def _decode(data: bytes, frame: int | None) -> Frame:
    notes: list[str] = []
    file = read(data, notes)
    header = read_header(file.dataset, notes)
    number = frame_number(header, frame)
    values, stream = decode_frame(file, header, number, notes)
    little = file.syntax.is_little_endian
    pixels = displayed(values, stream, header, file.dataset, little=little, notes=notes)
    tissue, flow = _regions(file.dataset, header.columns, header.rows)
    # A missing modality means nothing; secondary captures often have OT.
    if code(file.dataset, "Modality", []) not in (None, "US"):
        notes.append("modality_not_us")
    return Frame.of(
        Image.fromarray(np.ascontiguousarray(pixels)),
        warnings=tuple(dict.fromkeys(notes)),
        tissue=tissue,
        flow=flow,
    )


def _regions(
    dataset: pydicom.Dataset, width: int, height: int
) -> tuple[RoI | None, tuple[RoI, ...]]:
    """The one usable tissue region, and all colour flow regions (PS3.3, C.8.5.5).

    Usable: two-dimensional, of tissue, inside the frame. Files exist whose regions exceed it, since
    the frame was scaled afterwards.
    """
    tissue, flow = [], []
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        corners = [
            region.get(f"RegionLocation{corner}") for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1")
        ]
        kind = (region.get("RegionSpatialFormat"), region.get("RegionDataType"))
        if not all(isinstance(corner, int) for corner in corners):
            continue
        box = RoI(corners[0], corners[1], corners[2] + 1, corners[3] + 1)  # corners are inclusive
        if kind == (1, 1) and box.lies_inside(width, height):
            tissue.append(box)
        elif kind[1] == 2:
            flow.append(box)
    return tissue[0] if len(tissue) == 1 else None, tuple(flow)
