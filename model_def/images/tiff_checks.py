"""Whether a TIFF's strips or tiles are complete, where their compression has a checksum.

libtiff drops the warnings of libjpeg, and leaves off a deflated strip before its checksum once it
has all of its rows. LZW, PackBits and plain samples have no checksum.

Tags as in TIFF 6.0 and, of `JPEGTables`, its technical note 2.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL import TiffImagePlugin

from model_def.images import jpeg_checks
from model_def.limits import MAX_TILE_PIXELS

_COMPRESSION, _JPEG, _DEFLATE = 259, 7, (8, 32946)
_STRIP_OFFSETS, _STRIP_SIZES = 273, 279
_TILE_OFFSETS, _TILE_SIZES = 324, 325
_JPEG_TABLES = 347
_PHOTOMETRIC, _RGB = 262, 2
_BYTES_PER_PIXEL = 16
"""Twice those of four channels of 16 bits, since tiles go beyond the image's edge."""


def check(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Make sure that the file `data`, which `image` was opened from, holds its whole picture.

    Raises jpeg_checks.Damaged, jpeg_checks.TooManyScans, jpeg_checks.Unverifiable.
    """
    compression = image.tag_v2.get(_COMPRESSION)
    if compression != _JPEG and compression not in _DEFLATE:
        return
    pixels = max(image.width * image.height, MAX_TILE_PIXELS)  # what all pieces may hold, about
    allowed = 2 * pixels if compression == _JPEG else _BYTES_PER_PIXEL * pixels
    for piece in _pieces(image, data):
        if compression == _JPEG:
            allowed -= jpeg_checks.pixels(piece)
        else:
            allowed -= _inflated_size(piece, allowed)
        if allowed < 0:
            raise jpeg_checks.Damaged("strips or tiles are larger than the image")
        if compression == _JPEG:
            jpeg_checks.check(piece)
            if image.tag_v2.get(_PHOTOMETRIC) == _RGB and jpeg_checks.says_ycbcr(piece):
                raise jpeg_checks.Unverifiable(
                    "the TIFF's tags say RGB, its JPEG data YCbCr; export it again"
                )


def _pieces(image: TiffImagePlugin.TiffImageFile, data: bytes) -> Iterator[bytes]:
    """Its strips or tiles; those of JPEG with the tables that they share."""
    tags = image.tag_v2
    tiled = _TILE_OFFSETS in tags
    starts = tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    sizes = tags.get(_TILE_SIZES if tiled else _STRIP_SIZES, ())
    if len(starts) != len(sizes) or sum(sizes) > len(data):
        raise jpeg_checks.Damaged("strips or tiles overlap, or have no sizes")
    tables = tags.get(_JPEG_TABLES, b"")[:-2]  # both are JPEG streams from SOI to EOI
    for start, size in zip(starts, sizes, strict=True):
        piece = data[start : start + size]
        yield tables + piece[2:] if tables else piece


def _inflated_size(piece: bytes, allowed: int) -> int:
    """Bytes that it inflates to, its checksum compared; no further than beyond `allowed`."""
    inflater, size = zlib.decompressobj(), 0
    try:
        while not inflater.eof and size <= allowed:
            inflated = inflater.decompress(piece, 2**20)
            piece = inflater.unconsumed_tail
            size += len(inflated)
            if not inflated and not inflater.eof:
                raise jpeg_checks.Damaged("a strip or tile ends early")
    except zlib.error as error:
        raise jpeg_checks.Damaged(f"a strip or tile ({error})") from None
    return size
