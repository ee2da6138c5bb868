"""The header of a compressed frame, read before any pixel is decoded.

It bounds the work. A frame is refused where its size, samples or depth differ from the DICOM
header's; so are JPEGs of many scans and JPEG 2000 of many tiles or code blocks, where few bytes can
cost much memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal

from model_def.images import jpeg_checks
from model_def.images.dicom.header import Header
from model_def.images.errors import ImageTooLarge, UnreadableImage, UnsupportedImage
from model_def.limits import MAX_SCANS

MAX_J2K_TILES = 4096
"""16 million pixels in tiles of 64 x 64; each takes OpenJPEG 13 KB before it is decoded."""
MAX_J2K_BLOCKS = 2**16
"""Code blocks of a JPEG 2000 frame; each takes OpenJPEG 5 KB. 16 million pixels of colour in the
usual blocks of 32 x 32 have 47,000."""
MAX_J2K_PACKETS = 2**20
"""Layers times precincts; a packet takes OpenJPEG a microsecond, and may be one byte."""

Space = Literal["RGB", "YBR"]


@dataclass(frozen=True, kw_only=True)
class Codestream:
    """A frame's own header."""

    width: int
    height: int
    samples: int
    precision: int
    """Bits of a sample."""
    space: Space | None
    """Of three samples, as the decoder returns them; None where it is unknown."""
    certain: bool
    """Whether `space` is by a marker, by RGB's letters or by subsampling, and not by component
    ids of 1, 2, 3 alone, which RGB has had too."""
    for_libjpeg: bool = False
    """Whether it is a JPEG of the processes that libjpeg has."""
    rgb_in_libjpeg: bool = False
    """Whether libjpeg takes the samples for RGB; else it takes three for YCbCr."""
    transformed: bool = False
    """Whether JPEG 2000 mixed the samples (YBR_RCT, YBR_ICT); its decoder undoes it."""

    def check(self, header: Header) -> None:
        """Refuse what would decode to other pixels than the header says.

        Raises UnreadableImage: naming the tag.
        """
        for tag, stated, found in (
            ("Columns", header.columns, self.width),
            ("Rows", header.rows, self.height),
            ("SamplesPerPixel", header.samples, self.samples),
        ):
            if stated != found:
                raise UnreadableImage(
                    f"image: {tag} is {stated}, the compressed frame has {found}; export it again"
                )
        # Lossless grey may have fewer bits, as long as a window or a palette says what they show.
        fewer = self.samples == 1 and not self.for_libjpeg
        if self.precision > header.allocated or (self.precision < header.stored and not fewer):
            raise UnreadableImage(
                f"image: BitsStored is {header.stored}, the compressed frame has {self.precision}; "
                "export it again"
            )


def _damaged(kind: str) -> UnreadableImage:
    return UnreadableImage(
        f"image: the compressed frame is not valid {kind}; give the complete file"
    )


def read_jpeg(data: bytes) -> Codestream:
    """Of JPEG (ISO 10918-1, B.2) or JPEG-LS (ISO 14495-1, C.2): its frame header and markers.

    The colour space is libjpeg's choice (jdapimin.c, `default_decompress_parms`), save that here
    component ids of 1, 2, 3 are uncertain and others mean nothing.

    Raises UnreadableImage, ImageTooLarge: no such codestream, or too many scans.
    """
    jfif, transform = False, None
    for marker, body in _segments(data):
        if marker == 0xE0 and body.startswith(b"JFIF"):
            jfif = True
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            transform = body[11]
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            break
    else:
        raise _damaged("JPEG")
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise _damaged("JPEG")
    if (scans := jpeg_checks.count_scans(data)) > MAX_SCANS:
        raise ImageTooLarge(f"image: {scans} JPEG scans; the limit is {MAX_SCANS}; export it again")
    precision, height, width, samples = struct.unpack(">BHHB", body[:6])
    ids, sampling = body[6 : 6 + 3 * samples : 3], body[7 : 6 + 3 * samples : 3]
    cosine = marker in (0xC0, 0xC1, 0xC2)
    space: Space | None = None
    certain = True
    if jfif or transform is not None:
        space = "YBR" if jfif or transform else "RGB"
    elif ids in (b"RGB", b"rgb"):
        space = "RGB"
    elif len(set(sampling)) > 1:
        space = "YBR"
    else:
        space = "YBR" if cosine and ids == b"\1\2\3" else None
        certain = False
    return Codestream(
        width=width,
        height=height,
        samples=samples,
        precision=precision,
        space=space if samples == 3 else None,
        certain=certain,
        for_libjpeg=cosine,
        rgb_in_libjpeg=not jfif and (transform == 0 or (transform is None and ids == b"RGB")),
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment of a JPEG, up to its first scan."""
    if data[:2] != b"\xff\xd8":
        return
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker == 0xDA or length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def read_j2k(data: bytes) -> tuple[bytes, Codestream]:
    """Of JPEG 2000 (ISO 15444-1, annex A): the codestream without a file's boxes, and its header.

    Boxes are not for DICOM (PS3.5, A.4.4); their colour space is ignored.

    Raises UnreadableImage, UnsupportedImage, ImageTooLarge: no such codestream, subsampled, or of
    too many tiles or code blocks.
    """
    start = 0 if data.startswith(b"\xff\x4f\xff\x51") else data.find(b"jp2c\xff\x4f\xff\x51") + 4
    if start == 3:
        raise _damaged("JPEG 2000")
    data = data[start:]
    try:
        return data, _j2k_header(data)
    except (IndexError, struct.error):
        raise _damaged("JPEG 2000") from None


def _j2k_header(data: bytes) -> Codestream:
    size: tuple[int, ...] = ()
    mixes, layers = False, 1
    styles: list[tuple[int, bytes]] = []
    samples: list[bytes] = []
    for marker, body in _j2k_segments(data):
        if marker == 0x51:  # SIZ
            size = struct.unpack(">2x8IH", body[:36])
            samples = [body[at : at + 3] for at in range(36, 36 + 3 * size[8], 3)]
        elif marker == 0x52:  # COD
            mixes, layers = mixes or body[4] == 1, max(layers, *struct.unpack(">H", body[2:4]))
            styles.append((body[0], body[5:]))
        elif marker == 0x53:  # COC: the same for one component, whose number is 1 or 2 bytes
            at = 2 if len(samples) > 256 else 1
            styles.append((body[at], body[at + 1 :]))
    right, bottom, left, top, tile_width, tile_height = size[:6]
    depths = {sample[0] for sample in samples}
    if not styles or len(depths) != 1 or {sample[1:] for sample in samples} != {b"\1\1"}:
        raise UnsupportedImage(
            "image: JPEG 2000 with subsampled components, or of several depths; give it "
            "uncompressed"
        )
    width, height = right - left, bottom - top
    tiles = ceil(right / max(tile_width, 1)) * ceil(bottom / max(tile_height, 1))
    costs = [_j2k_cost(style & 1, rest, width * height, tiles) for style, rest in styles]
    blocks = len(samples) * max(blocks for blocks, _ in costs)
    packets = len(samples) * max(precincts for _, precincts in costs) * layers
    for name, found, limit in (
        ("tiles", tiles, MAX_J2K_TILES),
        ("code blocks", blocks, MAX_J2K_BLOCKS),
        ("packets", packets, MAX_J2K_PACKETS),
    ):
        if found > limit:
            raise ImageTooLarge(
                f"image: JPEG 2000 has {found} {name}; the limit is {limit}; export it again"
            )
    return Codestream(
        width=width,
        height=height,
        samples=len(samples),
        precision=(depths.pop() & 0x7F) + 1,
        space="RGB" if mixes else None,  # the decoder undoes the transform of its components
        certain=mixes,
        transformed=mixes,
    )


def _j2k_cost(has_precincts: int, style: bytes, pixels: int, tiles: int) -> tuple[int, int]:
    """Code blocks and precincts of one component, about; `style` is SPcod (ISO 15444-1, A.6.1)."""
    levels, block_width, block_height = style[0], style[1] + 2, style[2] + 2  # exponents of two
    blocks = precincts = 0
    for level in range(levels + 1):
        sides = style[5 + level] if has_precincts else 0xFF
        width, height = sides & 15, sides >> 4
        area = pixels >> 2 * (levels - level)
        precincts += (area >> width + height) + tiles
        # Above the lowest level a precinct is cut into bands of half its sides.
        band_width, band_height = (max(side - (level > 0), 0) for side in (width, height))
        block = min(block_width, band_width) + min(block_height, band_height)
        blocks += (area >> block) + (3 if level else 1) * tiles
    return blocks, precincts


def _j2k_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment in the main header and those of the tile parts."""
    at, tile_end = 2, 0
    while at + 4 <= len(data):
        marker, length = struct.unpack(">xBH", data[at : at + 4])
        if data[at] != 0xFF or marker == 0xD9:
            return
        if marker == 0x93:  # SOD: the packets follow
            if tile_end <= at:
                return
            at = tile_end
            continue
        body = data[at + 4 : at + 2 + length]
        if marker == 0x90:  # SOT
            (part,) = struct.unpack(">2xI", body[:6])
            tile_end = at + part if part else len(data)
        yield marker, body
        at += 2 + max(length, 2)
