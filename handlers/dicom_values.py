"""Stored DICOM values -> shades of 8 bits, by the file's own display facts.

Never by the image's own range. Greyscale (PS3.3, C.7.6.3.1.2 and C.11): rescale, then the first
window or VOI LUT; its output range, or without one the range of `BitsStored`, becomes 0 to 255;
MONOCHROME1 is inverted last. Palette and colour keep their high 8 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut

from handlers.errors import UnreadableImage, UnsupportedImage
from model_def.preprocessing import Pixels

Values = npt.NDArray[Any]


def shades(values: Values, dataset: pydicom.Dataset) -> Pixels:
    """Uint8 (H, W) or RGB (H, W, 3) of a decoded frame (H, W) or (H, W, 3).

    Raises:
        UnsupportedImage, UnreadableImage: display facts that are not taken, or make no sense.
    """
    photometric = dataset.PhotometricInterpretation
    if values.ndim == 3:
        return (values >> (int(dataset.BitsStored) - 8)).astype(np.uint8, copy=False)
    # What is shown is worked out once for every value that can be stored, not for every pixel.
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    every_value = np.arange(2 ** (8 * unsigned.itemsize)).astype(unsigned).view(values.dtype)
    if photometric == "PALETTE COLOR":
        table = _palette(every_value, dataset)
    elif photometric in ("MONOCHROME1", "MONOCHROME2"):
        table = _grey(every_value, dataset)
        if photometric == "MONOCHROME1":
            table = 255 - table
    else:
        raise UnreadableImage("image: colour with one sample a pixel", field="image")
    shown: Pixels = table[values.view(unsigned)]
    return shown


def _grey(values: Values, dataset: pydicom.Dataset) -> Pixels:
    """By rescale and window, before any inversion."""
    if "ModalityLUTSequence" in dataset or "RedPaletteColorLookupTableDescriptor" in dataset:
        raise UnsupportedImage(
            "image: modality LUT or supplemental palette; send it as displayed", field="image"
        )
    bits = int(dataset.BitsStored)
    if bits > 8 and "SharedFunctionalGroupsSequence" in dataset:
        raise UnsupportedImage(
            f"image: enhanced multi-frame with {bits} bits; send it as displayed, in 8",
            field="image",
        )
    has_lut = bool(dataset.get("VOILUTSequence"))
    has_window = None not in (dataset.get("WindowCenter"), dataset.get("WindowWidth"))
    low, high = 0.0, 2.0**bits - 1
    if values.dtype.kind == "i":
        low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    if None not in (dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")):
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
        low, high = slope * low + intercept, slope * high + intercept
    shown = apply_voi_lut(apply_modality_lut(values, dataset), dataset)
    if has_lut:
        low, high = 0.0, 2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif not has_window:
        low, high = min(low, high), max(low, high)
    # A window's output runs from `low` to `high`, which a negative slope has swapped.
    if low == high or not np.isfinite([low, high]).all() or not np.isfinite(shown).all():
        raise UnreadableImage("image: rescale or window without meaning", field="image")
    scaled = (shown.astype(np.float64) - low) * (255 / (high - low))
    grey: Pixels = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return grey


def _palette(index: Values, dataset: pydicom.Dataset) -> Pixels:
    """RGB by the palette of the file; an index beyond its ends takes the end's colour."""
    entries, first, depth = dataset.RedPaletteColorLookupTableDescriptor
    entries = entries or 2**16
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    for colour in ("Red", "Green", "Blue"):
        plain, segmented = (
            f"{kind}{colour}PaletteColorLookupTableData" for kind in ("", "Segmented")
        )
        if plain in dataset and len(dataset[plain].value) == 2 * entries and not little:
            # pydicom takes the table as little endian.
            dataset[plain].value = (
                np.frombuffer(dataset[plain].value, ">u2").astype("<u2").tobytes()
            )
        if segmented in dataset:
            _check_segments(dataset[segmented].value, "<" if little else ">", depth)
    colours = apply_color_lut(index.clip(first, first + entries - 1), dataset)[..., :3]
    if colours.dtype == np.uint8:
        if entries > 256:
            raise UnsupportedImage("image: 8-bit palette of over 256 entries", field="image")
        return colours
    # Tables of 8 bits may come in the low or in both bytes of 16 (PS3.3, C.7.6.3.1.6).
    if depth == 8 and colours.max() < 256:
        return colours.astype(np.uint8)
    return (colours >> 8).astype(np.uint8)


def _check_segments(table: bytes, order: str, depth: int) -> None:
    """Refuse a segmented palette (PS3.3, C.7.9.2) that expands beyond 2**16 entries.

    Indirect segments repeat others, which may repeat others: none is taken.
    """
    words = np.frombuffer(table, np.uint8 if depth == 8 else f"{order}u2").tolist()
    at = expanded = 0
    while at + 1 < len(words):
        kind, length = words[at], words[at + 1]
        expanded += length
        if kind > 1 or expanded > 2**16:
            raise UnsupportedImage(
                "image: segmented palette, indirect or of over 65536 entries", field="image"
            )
        at += 2 + (length if kind == 0 else 1)
