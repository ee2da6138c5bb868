"""A DICOM file's bytes -> one stored frame, within limits; only that frame is decoded.

pydicom reads and decodes. Of the header only the tags named here are kept: names and ids never
leave the file's bytes, and neither messages nor logs quote a value.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from handlers.dicom_values import shades
from handlers.errors import (
    ImageTooLarge,
    InvalidFrame,
    MissingDecoder,
    RequestError,
    UnreadableImage,
    UnsupportedImage,
)
from handlers.frames import MAX_DICOM_BYTES, MAX_FRAMES, Frame, check_jpeg
from model_def.preprocessing import RoI
from model_def.stored_image import MAX_PIXELS

# Both quote values of the file, patients' names among them.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom\.")

MAX_READS = 400_000
"""Pieces that the header and the table of frames may have: nested empty items are cheap to send and
costly to read. A loop of `MAX_FRAMES` takes a tenth of it."""
MAX_ELEMENT = 2**18
"""Bytes of a header element that is kept; a full 16-bit palette has 2**17."""

_TAGS = (
    "Modality SamplesPerPixel PhotometricInterpretation NumberOfFrames Rows Columns BitsAllocated "
    "BitsStored HighBit PixelRepresentation RescaleSlope RescaleIntercept WindowCenter WindowWidth "
    "VOILUTFunction VOILUTSequence ModalityLUTSequence PixelPresentation "
    "SharedFunctionalGroupsSequence SequenceOfUltrasoundRegions "
    "ExtendedOffsetTable ExtendedOffsetTableLengths "
    + " ".join(
        f"{segmented}{colour}PaletteColorLookupTableData"
        for colour in ("Red", "Green", "Blue")
        for segmented in ("", "Segmented")
    )
    + "".join(f" {c}PaletteColorLookupTableDescriptor" for c in ("Red", "Green", "Blue"))
).split()

_PHOTOMETRICS = (
    *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB"),
    *("YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"),
)

# Named, so that further decoders on a machine do not change the numbers.
_DECODER_OF = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEG2000Lossless: "pillow",
    uid.JPEG2000: "pillow",
    uid.RLELossless: "pydicom",
}


def is_dicom(data: bytes) -> bool:
    """Whether it has the preamble of a DICOM file (PS3.10, 7.1)."""
    return data[128:132] == b"DICM"


def decode(data: bytes, frame: int | None) -> Frame:
    """Frame number `frame` (from 0); a file of several frames needs one.

    Raises:
        ImageTooLarge, UnsupportedImage, MissingDecoder, UnreadableImage, InvalidFrame: with the
            limit, what is taken, or the number of frames.
    """
    if len(data) > MAX_DICOM_BYTES:
        raise ImageTooLarge(
            f"image: {len(data)} bytes; the limit is {MAX_DICOM_BYTES}, cut the loop", field="image"
        )
    try:
        return _decode(data, frame)
    except RequestError:
        raise
    except Exception as error:  # pydicom raises many types on damaged files
        raise UnreadableImage(
            f"image: damaged or incomplete DICOM ({type(error).__name__}); send the whole file",
            field="image",
        ) from None


def _decode(data: bytes, frame: int | None) -> Frame:
    file = _Reader(_inflated(data))
    dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
    for tag in dataset.keys():  # noqa: SIM118 - iterating the dataset itself would parse values
        raw: Any = dataset.get_item(tag)
        size = len(raw.value or b"") if isinstance(raw, RawDataElement) else 0
        if size > MAX_ELEMENT:
            raise ImageTooLarge(
                f"image: a header element of {size} bytes; the limit is {MAX_ELEMENT}",
                field="image",
            )
    _check_kind(dataset)
    number = _frame_number(dataset, frame)
    plugin = _decoding_plugin(dataset)
    if plugin:
        _check_encoded(file, dataset, number, plugin)
    file.seek(0)
    pixels: npt.NDArray[Any] = pixel_array(file, index=number, decoding_plugin=plugin)
    stored = Image.fromarray(np.ascontiguousarray(shades(pixels, dataset)))
    width_height = (int(dataset.Columns), int(dataset.Rows))
    if stored.size != width_height:
        raise UnreadableImage(
            "image: the frame has not the size that the header says", field="image"
        )
    tissue, flow = _regions(dataset, *width_height)
    # Text that is absent says nothing; secondary captures often have OT.
    foreign = str(dataset.get("Modality") or "US") != "US"
    return Frame.of(
        stored, warnings=("modality_not_us",) if foreign else (), tissue=tissue, flow=flow
    )


class _Reader(io.BytesIO):
    """A file in memory that ends a parse of too many pieces."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise ImageTooLarge(
                f"image: a DICOM header of more than {MAX_READS} pieces", field="image"
            )
        return super().read(size)


def _inflated(data: bytes) -> bytes:
    """The file with its data set inflated, where it is deflated (PS3.5, A.5): up to the limit."""
    file = io.BytesIO(data)
    pydicom.filereader.read_preamble(file, force=False)
    meta = pydicom.filereader._read_file_meta_info(file)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        return data
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(data[file.tell() :], MAX_DICOM_BYTES)
    if not inflater.eof:
        if len(body) < MAX_DICOM_BYTES:
            raise UnreadableImage("image: deflated DICOM, cut short", field="image")
        raise ImageTooLarge(
            f"image: inflates to more than {MAX_DICOM_BYTES} bytes, the limit", field="image"
        )
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    return data[:132] + head.getvalue() + body


def _check_kind(dataset: pydicom.Dataset) -> None:
    """Refuse by the header what is too large, or not taken."""
    if "Rows" not in dataset or "Columns" not in dataset:
        raise UnsupportedImage("image: a DICOM file without pixels; send an image", field="image")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows * columns > MAX_PIXELS:
        raise ImageTooLarge(
            f"image: {columns} x {rows} pixels; the limit is {MAX_PIXELS} in all", field="image"
        )
    if dataset.get("PhotometricInterpretation") not in _PHOTOMETRICS:
        raise UnsupportedImage(
            f"image: photometric interpretation; give one of {', '.join(_PHOTOMETRICS)}",
            field="image",
        )
    allocated, stored = int(dataset.BitsAllocated), int(dataset.get("BitsStored", 0))
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise UnsupportedImage(
            f"image: {stored} bits stored in {allocated}; give 8 to 16 in 8 or 16", field="image"
        )
    if int(dataset.get("HighBit", stored - 1)) != stored - 1:
        raise UnsupportedImage(
            "image: high bit is not bits stored - 1; write it anew", field="image"
        )


def _frame_number(dataset: pydicom.Dataset, frame: int | None) -> int:
    count = int(dataset.get("NumberOfFrames") or 1)
    if count > MAX_FRAMES:
        raise ImageTooLarge(f"image: {count} frames; the limit is {MAX_FRAMES}", field="image")
    if frame is None and count > 1:
        raise InvalidFrame(
            f"frame: absent, and the file has {count} frames; give 0 to {count - 1}", field="frame"
        )
    if frame is not None and frame >= count:
        raise InvalidFrame(
            f"frame: {frame} is beyond the last; the file has {count}, give 0 to {count - 1}",
            field="frame",
        )
    return frame or 0


def _decoding_plugin(dataset: pydicom.Dataset) -> str:
    """The decoder to use; empty where the syntax is not compressed, or any that is installed."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        decoder = get_decoder(syntax or "")
    except NotImplementedError:
        raise UnsupportedImage(
            "image: a transfer syntax without decoder, such as video; send it uncompressed",
            field="image",
        ) from None
    installed = set(decoder.available_plugins)
    if syntax == uid.JPEGExtended12Bit:
        if int(dataset.BitsStored) == 8:
            return "pillow"
        installed -= {"pillow"}  # it decodes 8 bits only
    if decoder.is_encapsulated and not installed:
        raise MissingDecoder(
            f"image: {syntax.name} needs a package that is not installed here: "
            "pip install 'pylibjpeg[all]' or python-gdcm, or send it uncompressed",
            field="image",
        )
    return _DECODER_OF.get(syntax, "")


def _check_encoded(file: _Reader, dataset: pydicom.Dataset, number: int, plugin: str) -> None:
    """Refuse a compressed frame that would decode to another size than the header says."""
    file.seek(12, io.SEEK_CUR)  # from the element's tag to its value: explicit VR OB
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    encoded = get_frame(
        file,
        number,
        number_of_frames=int(dataset.get("NumberOfFrames") or 1),
        extended_offsets=offsets,
    )
    columns, rows = int(dataset.Columns), int(dataset.Rows)
    if plugin == "pydicom":
        fits = _rle_fits(encoded, rows * columns)
    else:
        with Image.open(io.BytesIO(encoded), formats=("JPEG", "JPEG2000")) as image:
            fits = image.size == (columns, rows)
            if fits and image.format == "JPEG":
                check_jpeg(encoded)
    if not fits:
        raise UnreadableImage(
            "image: the compressed frame has not the size that the header says", field="image"
        )


def _rle_fits(encoded: bytes, pixels: int) -> bool:
    """Whether no byte plane of an RLE frame (PS3.5, annex G) unpacks to over twice its pixels.

    pydicom would unpack it all first: two bytes become 128.
    """
    count, *offsets = struct.unpack("<16L", encoded[:64])
    for start, end in pairwise([*offsets[: min(count, 15)], len(encoded)]):
        at, unpacked = start, 0
        while at < min(end, len(encoded)):
            control = encoded[at]
            unpacked += 0 if control == 128 else 257 - control if control > 128 else control + 1
            at += 1 if control == 128 else 2 if control > 128 else control + 2
            if unpacked > 2 * pixels:
                return False
    return True


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
