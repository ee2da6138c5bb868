"""Stored DICOM values -> pixels of 8 bits, by the file's own display facts.

Never by the image's own range. Greyscale (PS3.3, C.7.6.3.1.2 and C.11): rescale, then the first
window or VOI LUT; its output range, or without one the range of `BitsStored`, becomes 0 to 255;
MONOCHROME1 is inverted last. Palette and colour keep their high 8 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.processing import apply_color_lut

from model_def.images.dicom.codestreams import Codestream
from model_def.images.dicom.colour import to_rgb
from model_def.images.dicom.header import Header, code, number, values
from model_def.images.errors import UnreadableImage, UnsupportedImage
from model_def.preprocessing import Pixels

Values = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def displayed(
    stored: Values,
    stream: Codestream | None,
    header: Header,
    dataset: pydicom.Dataset,
    *,
    little: bool,
    notes: list[str],
) -> Pixels:
    """Uint8 (H, W) or RGB (H, W, 3) of stored values (H, W) or (H, W, 3).

    Args:
        stream: what a compressed frame says of its colour space.
        little: whether the header is little endian.
        notes: gets a warning for each display fact that is ignored.

    Raises UnsupportedImage, UnreadableImage: display facts that are not supported, or are invalid.
    """
    if header.samples == 3:
        samples: Pixels = (stored >> (header.stored - 8)).astype(np.uint8)
        return to_rgb(samples, header.photometric, stream, notes)
    # What is shown is worked out once for every value that can be stored, not for every pixel.
    unsigned = np.dtype(f"u{stored.dtype.itemsize}")
    every_value = np.arange(2 ** (8 * unsigned.itemsize)).astype(unsigned).view(stored.dtype)
    if header.photometric == "PALETTE COLOR":
        table = _palette(every_value, dataset, little)
    else:
        share = _shown(every_value.astype(np.float64), stream, header, dataset, little, notes)
        table = np.rint(255 * share).astype(np.uint8)
        if header.photometric == "MONOCHROME1":
            table = 255 - table
    shown: Pixels = table[stored.view(unsigned)]
    return shown


def _shown(
    grey: Floats,
    stream: Codestream | None,
    header: Header,
    dataset: pydicom.Dataset,
    little: bool,
    notes: list[str],
) -> Floats:
    """Stored values as shares of the full scale, by rescale and window, before any inversion."""
    palette = "RedPaletteColorLookupTableDescriptor"
    if values(dataset, "ModalityLUTSequence") or values(dataset, palette):
        raise UnsupportedImage(
            f"image: ModalityLUTSequence, or {palette} on grey, is not supported; give the pixels "
            "as displayed"
        )
    bits = header.stored
    if bits > 8 and values(dataset, "SharedFunctionalGroupsSequence"):
        raise UnsupportedImage(
            f"image: enhanced multi-frame with {bits} bits is not supported; give 8-bit pixels as "
            "displayed"
        )
    low, high = (
        (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if header.signed else (0, 2.0**bits - 1)
    )
    slope, intercept = _rescale(dataset, notes)
    grey = slope * grey + intercept
    ends = sorted((slope * low + intercept, slope * high + intercept))
    if ends[0] == ends[1] or not np.isfinite(ends).all() or not np.isfinite(grey).all():
        raise UnreadableImage(
            "image: RescaleSlope and RescaleIntercept leave a single grey level; export it again"
        )
    share = _by_lut(grey, header, dataset, little, notes)
    if share is None:
        share = _windowed(grey, dataset, notes)
    if share is None and stream and stream.precision < header.stored:
        raise UnreadableImage(
            f"image: BitsStored is {header.stored}, the compressed frame has {stream.precision} "
            "bits, and no window gives the displayed range; export it again"
        )
    if share is None:
        share = ((grey - ends[0]) / (ends[1] - ends[0])).clip(0, 1)
    return share


def _rescale(dataset: pydicom.Dataset, notes: list[str]) -> tuple[float, float]:
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope is not None and intercept is not None:
        return slope, intercept
    if slope not in (None, 1) or intercept not in (None, 0):
        raise UnreadableImage(
            "image: RescaleSlope and RescaleIntercept must both be present; export it again"
        )
    if "RescaleSlope" in dataset or "RescaleIntercept" in dataset:
        notes.append("rescale_ignored")
    return 1.0, 0.0


def _windowed(grey: Floats, dataset: pydicom.Dataset, notes: list[str]) -> Floats | None:
    """By the first window (PS3.3, C.11.2.1.2 and C.11.2.1.3); None without one that can be."""
    centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    kind = code(dataset, "VOILUTFunction", notes) or "LINEAR"
    if centre is None and width is None:
        return None
    if kind not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnsupportedImage(
            "image: unsupported VOILUTFunction; use LINEAR, LINEAR_EXACT or SIGMOID"
        )
    if width is not None and width < 0:
        raise UnreadableImage(f"image: WindowWidth is {width:g}; it must be positive")
    if centre is None or width is None or width == 0 or (kind == "LINEAR" and width < 1):
        notes.append("window_ignored")
        return None
    if kind == "SIGMOID":
        sigmoid: Floats = 1 / (1 + np.exp((-4 * (grey - centre) / width).clip(-700, 700)))
        return sigmoid
    if kind == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (grey > centre).astype(np.float64)
    return ((grey - centre) / width + 0.5).clip(0, 1)


def _by_lut(
    grey: Floats, header: Header, dataset: pydicom.Dataset, little: bool, notes: list[str]
) -> Floats | None:
    """By the first VOI LUT (PS3.3, C.11.2.1.1); None without one.

    Not by pydicom 3, which wraps the index where entries of 8 bits are over 256.
    """
    item = next(iter(values(dataset, "VOILUTSequence")), None)
    if item is None:
        return None
    descriptor, data = values(item, "LUTDescriptor"), values(item, "LUTData")
    if not descriptor or not data:
        notes.append("voi_lut_ignored")
        return None
    if len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        raise UnreadableImage("image: LUTDescriptor of the VOI LUT is damaged; export it again")
    entries, first, depth = (descriptor[0] & 0xFFFF) or 2**16, descriptor[1], descriptor[2]
    if header.signed and first >= 2**15:  # written as if without sign
        first -= 2**16
    order = "<" if little else ">"
    if isinstance(data[0], bytes):
        words = np.frombuffer(data[0][: len(data[0]) // 2 * 2], f"{order}u2")
    else:
        words = np.array(data, "u2")
    if len(words) == -(-entries // 2) and depth == 8:
        notes.append("voi_lut_in_bytes")
        words = words.astype("<u2").view(np.uint8)[:entries]
    if len(words) != entries or words.max() >= 2**depth:
        raise UnreadableImage(
            "image: LUTData of the VOI LUT does not match LUTDescriptor; export it again"
        )
    at = (np.rint(grey) - first).clip(0, entries - 1).astype(np.int64)
    shares: Floats = words[at] / (2.0**depth - 1)
    return shares


def _palette(index: Values, dataset: pydicom.Dataset, little: bool) -> Pixels:
    """RGB by the palette of the file; an index beyond its ends takes the end's colour."""
    descriptor = values(dataset, "RedPaletteColorLookupTableDescriptor")
    if len(descriptor) != 3:
        raise UnreadableImage(
            "image: RedPaletteColorLookupTableDescriptor is missing or damaged; export it again"
        )
    entries, first, depth = descriptor
    entries = entries or 2**16
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
    try:
        colours = apply_color_lut(index.clip(first, first + entries - 1), dataset)[..., :3]
    except Exception:  # of many types
        raise UnreadableImage(
            "image: PaletteColorLookupTableData is missing or damaged; export it again"
        ) from None
    if colours.dtype == np.uint8:
        if entries > 256:
            raise UnsupportedImage(
                f"image: 8-bit palette of {entries} entries; the limit is 256; give RGB"
            )
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
                "image: segmented palette is indirect or has more than 65536 entries; give RGB"
            )
        at += 2 + (length if kind == 0 else 1)
