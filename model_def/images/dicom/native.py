"""Frames that are not compressed: each by the layout whose length the pixel data have."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model_def.images.dicom.file import File
from model_def.images.dicom.header import Header
from model_def.images.errors import UnreadableImage, UnsupportedImage

Values = npt.NDArray[Any]


def within(values: Values, header: Header) -> Values:
    """Values of `BitsStored` bits alone: those above may hold an overlay (PS3.5, 8.1.1)."""
    unused = 8 * values.dtype.itemsize - header.stored
    return values << unused >> unused if unused else values


def native_frame(file: File, header: Header, number: int, notes: list[str]) -> Values:
    """The samples of frame `number`: (rows, columns), or (rows, columns, 3) as they are stored.

    Raises UnreadableImage, UnsupportedImage: too few bytes, or no layout fits.
    """
    assert file.size is not None
    start = file.body.tell()
    data = memoryview(file.body.data)[start : start + file.size]
    pixels, size = header.rows * header.columns, header.allocated // 8
    if header.photometric == "YBR_FULL_422" and len(data) == file.size:
        whole = 3 * pixels * size * header.frames
        if file.size not in (whole, whole + whole % 2):
            return _subsampled(data, file, header, number)
        notes.append("ybr_422_stored_in_full")
    frame = header.samples * pixels * size
    whole = frame * header.frames
    if len(data) < whole:
        raise UnreadableImage(
            f"image: PixelData has {len(data)} bytes, but NumberOfFrames, Rows and Columns need "
            f"{whole}; give the complete file"
        )
    if len(data) > whole + whole % 2:
        if header.frames > 1 and len(data) % frame:
            raise UnreadableImage(
                f"image: PixelData has {len(data)} bytes, not a multiple of the {frame} bytes of a "
                "frame; export it again"
            )
        notes.append("pixel_data_too_long")
    if header.samples == 3 and header.planar is None:
        raise UnsupportedImage(
            "image: PlanarConfiguration is missing, so the order of the samples is unknown; "
            "export it again"
        )
    data = _swapped(data, file, header)
    order = "<" if file.syntax.is_little_endian else ">"
    kind = np.dtype(f"{order}{'i' if header.signed else 'u'}{size}")
    values = np.frombuffer(data, kind, header.samples * pixels, number * frame)
    values = values.astype(kind.newbyteorder("="))
    if header.samples == 1:
        return values.reshape(header.rows, header.columns)
    if header.planar == 1:
        return np.moveaxis(values.reshape(3, header.rows, header.columns), 0, -1)
    return values.reshape(header.rows, header.columns, 3)


def _swapped(data: memoryview, file: File, header: Header) -> memoryview:
    """Bytes in their order: big endian words (OW) swap samples of 8 bits pairwise."""
    if file.syntax.is_little_endian or header.allocated == 16 or not file.words:
        return data
    return memoryview(np.frombuffer(data[: len(data) // 2 * 2], "u2").byteswap().tobytes())


def _subsampled(data: memoryview, file: File, header: Header, number: int) -> Values:
    """YBR_FULL_422 (PS3.3, C.7.6.3.1.2): two luminances and their chrominances in four bytes.

    Rows of odd width are either padded to two pixels, or run on in the next row.
    """
    rows, columns = header.rows, header.columns
    row = columns + columns % 2
    padded, running = 2 * rows * row, 4 * -(-rows * columns // 2)
    fits = [frame for frame in (padded, running) if frame * header.frames == len(data)]
    if not fits or header.allocated != 8:
        raise UnreadableImage(
            f"image: PixelData has {len(data)} bytes, which do not fit YBR_FULL_422 "
            "(PhotometricInterpretation) with NumberOfFrames, Rows and Columns; export it again"
        )
    if header.planar == 1:
        raise UnsupportedImage(
            "image: PlanarConfiguration is 1; YBR_FULL_422 needs 0; export it again"
        )
    frame = fits[0]
    data = _swapped(data, file, header)
    pairs = np.frombuffer(data, np.uint8, frame, number * frame).reshape(-1, 4)
    pixels = pairs[:, [0, 2, 3, 1, 2, 3]].reshape(-1, 3)
    if frame == padded:
        return pixels.reshape(rows, row, 3)[:, :columns]
    return pixels[: rows * columns].reshape(rows, columns, 3)
