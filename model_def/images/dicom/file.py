"""A DICOM file's bytes -> its header, and where its pixels lie: preamble, meta group, encoding.

Files without preamble or meta group are accepted. Where the transfer syntax contradicts the data
set's own first element (PS3.5, 7.1), that element decides, and a warning says so.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import Tag
from pydicom.valuerep import VR

from model_def.images.dicom.header import KEYWORDS
from model_def.images.errors import ImageTooLarge, UnreadableImage, UnsupportedImage
from model_def.limits import MAX_DICOM_BYTES, MAX_ELEMENT_BYTES, MAX_READS

_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA, _FLOAT_PIXELS = 0x7FE00010, (0x7FE00008, 0x7FE00009)
_VRS = {vr.encode() for vr in VR if len(vr) == 2}
_NATIVE = {
    (True, True): uid.ImplicitVRLittleEndian,
    (False, True): uid.ExplicitVRLittleEndian,
    (False, False): uid.ExplicitVRBigEndian,
}


class Reader(io.BytesIO):
    """A file in memory that ends a parse of too many reads, or of the same bytes in a loop.

    pydicom looks for the end of an element of undefined length up to the end of the file, and goes
    back where there is none.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data  # io.BytesIO would copy them for a view
        self.reads = 0
        self.bytes_left = 2 * len(data) + 2**16

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; ImageTooLarge after `MAX_READS` calls, or twice the file."""
        found = super().read(size)
        self.reads += 1
        self.bytes_left -= len(found)
        if self.reads > MAX_READS or self.bytes_left < 0:
            raise ImageTooLarge(
                f"image: the DICOM header takes more than {MAX_READS} reads, or loops; "
                "export it again"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class File:
    """What a DICOM file holds, parsed up to its pixels."""

    dataset: Dataset
    """The elements of `KEYWORDS` alone."""
    syntax: uid.UID
    """The transfer syntax, as the data set is really encoded."""
    body: Reader
    """Positioned at the first byte of the value of PixelData."""
    size: int | None
    """Bytes of PixelData; None where it is encapsulated."""
    words: bool
    """Whether PixelData has the VR OW."""


def is_dicom(data: bytes) -> bool:
    """Whether it is a DICOM file (PS3.10, 7.1), or a data set without the preamble of one."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8:
        return False
    little, big = struct.unpack("<HH", data[:4]), struct.unpack(">HH", data[:4])
    if data[4:6] in _VRS:
        return little[0] in (2, 8) or big[0] == 8
    return little[0] == 8 and int.from_bytes(data[4:8], "little") < 2**16


def read(data: bytes, notes: list[str]) -> File:
    """The header of a file, and its body positioned at the pixels; `notes` gets the warnings.

    Raises ImageTooLarge, UnsupportedImage, UnreadableImage: with the limit, or the tag at fault.
    """
    body = Reader(data)
    read_preamble(body, force=True)
    meta = read_dataset(body, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    stated = str(meta.get("TransferSyntaxUID") or "").strip(" \0")
    if stated == uid.DeflatedExplicitVRLittleEndian:
        body, stated = Reader(_inflated(data, body.tell())), str(uid.ExplicitVRLittleEndian)
    syntax, implicit = _encoding(body, stated, notes)
    dataset = read_dataset(
        body,
        implicit,
        syntax.is_little_endian,
        stop_when=lambda tag, vr, length: tag in (_PIXEL_DATA, *_FLOAT_PIXELS),
        specific_tags=[Tag(keyword) for keyword in KEYWORDS],
    )
    _check_sizes(dataset)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise UnsupportedImage("image: DICOM file without pixels; give an image")
    size, words = _pixels(body, syntax)
    if stated == "" and size is None:
        raise UnsupportedImage(
            "image: TransferSyntaxUID is missing and the pixels are compressed; export it again"
        )
    return File(dataset=dataset, syntax=syntax, body=body, size=size, words=words)


def _inflated(data: bytes, start: int) -> bytes:
    """The data set of a deflated file (PS3.5, A.5), up to the limit."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(memoryview(data)[start:], MAX_DICOM_BYTES)
    except zlib.error:
        raise UnreadableImage("image: deflated DICOM is damaged; give the complete file") from None
    if not inflater.eof:
        if len(body) < MAX_DICOM_BYTES:
            raise UnreadableImage("image: deflated DICOM is truncated; give the complete file")
        raise ImageTooLarge(
            f"image: more than {MAX_DICOM_BYTES} bytes when decompressed; give fewer frames"
        )
    return body


def _encoding(body: Reader, stated: str, notes: list[str]) -> tuple[uid.UID, bool]:
    """The transfer syntax, corrected by the data set's first element; whether it is implicit."""
    head = body.read(6)
    body.seek(-len(head), io.SEEK_CUR)
    syntax = uid.UID(stated or uid.ExplicitVRLittleEndian)
    if not syntax.is_transfer_syntax:
        raise UnsupportedImage("image: unknown TransferSyntaxUID; export it again")
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    # Groups begin at 0008 and stay below 0100 until the pixels: one of the two bytes is zero.
    if len(head) == 6 and 0 in head[:2]:
        little = head[1] == 0
        implicit = head[4:6] not in _VRS
    found = (implicit, little)
    if found not in _NATIVE or (syntax.is_encapsulated and not little):
        raise UnsupportedImage(
            "image: TransferSyntaxUID contradicts the byte order; export it again"
        )
    if not stated:
        notes.append("transfer_syntax_assumed")
        syntax = _NATIVE[found]
    elif found != (syntax.is_implicit_VR, syntax.is_little_endian):
        notes.append("transfer_syntax_contradicted")
        syntax = syntax if syntax.is_encapsulated else _NATIVE[found]
    return syntax, implicit


def _check_sizes(dataset: Dataset) -> None:
    """Refuse an element, in nested items too, that is larger than any that is needed."""
    for tag in dataset.keys():  # noqa: SIM118 - iterating the dataset itself would parse values
        element = dataset.get_item(tag)
        value = element.value if element is not None else None
        if isinstance(value, bytes) and len(value) > MAX_ELEMENT_BYTES:
            raise ImageTooLarge(
                f"image: a header element has {len(value)} bytes; the limit is "
                f"{MAX_ELEMENT_BYTES}; remove it"
            )
        if element is not None and element.VR == VR.SQ and not isinstance(value, bytes | None):
            for item in value:
                _check_sizes(item)


def _pixels(body: Reader, syntax: uid.UID) -> tuple[int | None, bool]:
    """Bytes of PixelData (None: encapsulated) and whether its VR is OW; `body` is left at it."""
    order = "<" if syntax.is_little_endian else ">"
    head = body.read(8)
    if len(head) < 8:
        raise UnreadableImage("image: PixelData is missing or truncated; give the complete file")
    group, element = struct.unpack(f"{order}HH", head[:4])
    if group << 16 | element != _PIXEL_DATA:
        raise UnsupportedImage("image: pixel values are not integers; give 8 or 16 bits")
    # Lengths are even, so these letters are none.
    explicit = head[4:] in (b"OB\0\0", b"OW\0\0", b"UN\0\0")
    (length,) = struct.unpack(f"{order}I", body.read(4) if explicit else head[4:])
    if (length == _UNDEFINED) != syntax.is_encapsulated:
        raise UnsupportedImage(
            "image: TransferSyntaxUID and PixelData disagree on compression; export it again"
        )
    return None if length == _UNDEFINED else length, head[4:6] == b"OW"
