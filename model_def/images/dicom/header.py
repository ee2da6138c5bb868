"""A DICOM header's facts about its pixels, checked. A missing fact with one usual value is assumed,
with a warning.

Messages name the tag and never quote a value that is text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from model_def.images.errors import ImageTooLarge, InvalidFrame, UnreadableImage, UnsupportedImage
from model_def.limits import MAX_FRAMES, MAX_PIXELS

KEYWORDS = (
    "Modality SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows "
    "Columns BitsAllocated BitsStored HighBit PixelRepresentation RescaleSlope RescaleIntercept "
    "WindowCenter WindowWidth VOILUTFunction VOILUTSequence ModalityLUTSequence PixelPresentation "
    "SharedFunctionalGroupsSequence SequenceOfUltrasoundRegions "
    "ExtendedOffsetTable "
    + " ".join(
        f"{segmented}{colour}PaletteColorLookupTableData"
        for colour in ("Red", "Green", "Blue")
        for segmented in ("", "Segmented")
    )
    + "".join(f" {c}PaletteColorLookupTableDescriptor" for c in ("Red", "Green", "Blue"))
).split()
"""All that is kept of a header: names and ids never leave the file's bytes."""

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


@dataclass(frozen=True, kw_only=True)
class Header:
    """The image pixel module (PS3.3, C.7.6.3)."""

    rows: int
    columns: int
    frames: int
    samples: int
    """1, or 3 of colour."""
    photometric: str
    allocated: int
    """Bits that a native sample takes: 8 or 16."""
    stored: int
    """Bits that count, 8 to 16."""
    signed: bool
    planar: int | None
    """0: samples pixel by pixel, 1: plane by plane; None where it is missing.
    It applies to native pixels alone."""


def read_header(dataset: Dataset, notes: list[str]) -> Header:
    """The image pixel module of a data set; `notes` gets what was assumed.

    Raises ImageTooLarge, UnsupportedImage, UnreadableImage: with the limit, or the tag at fault.
    """
    rows, columns = required(dataset, "Rows"), required(dataset, "Columns")
    if rows * columns > MAX_PIXELS:
        raise ImageTooLarge(
            f"image: {columns} x {rows} pixels; the limit is {MAX_PIXELS} in total; crop it"
        )
    if rows < 1 or columns < 1:
        raise UnreadableImage("image: Rows and Columns must be positive")
    frames = integer(dataset, "NumberOfFrames") or 1
    if not 1 <= frames <= MAX_FRAMES:
        raise ImageTooLarge(f"image: NumberOfFrames is {frames}; it must be 1 to {MAX_FRAMES}")
    photometric = code(dataset, "PhotometricInterpretation", notes)
    if photometric not in (*_GREY, *_COLOUR):
        raise UnsupportedImage(
            "image: unsupported PhotometricInterpretation; use one of "
            + ", ".join((*_GREY, *_COLOUR))
        )
    samples = integer(dataset, "SamplesPerPixel")
    usual = 3 if photometric in _COLOUR else 1
    if samples is None:
        notes.append("samples_per_pixel_assumed")
        samples = usual
    if samples != usual:
        raise UnreadableImage(
            f"image: SamplesPerPixel is {samples}, PhotometricInterpretation {photometric} needs "
            f"{usual}"
        )
    allocated, stored = _bits(dataset, notes)
    signed = integer(dataset, "PixelRepresentation")
    if signed is None or (samples == 3 and signed == 1):  # colour is never signed
        if stored > 8 and samples == 1:
            raise UnsupportedImage(
                f"image: PixelRepresentation is missing, and {stored} bits may be signed or not; "
                "export it again"
            )
        notes.append("pixel_representation_assumed")
        signed = dataset.PixelRepresentation = 0  # pydicom reads palettes and tables by it
    planar = integer(dataset, "PlanarConfiguration")
    if signed not in (0, 1) or planar not in (None, 0, 1):
        raise UnreadableImage("image: PixelRepresentation and PlanarConfiguration must be 0 or 1")
    return Header(
        rows=rows,
        columns=columns,
        frames=frames,
        samples=samples,
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        signed=bool(signed),
        planar=planar,
    )


def _bits(dataset: Dataset, notes: list[str]) -> tuple[int, int]:
    allocated, stored = required(dataset, "BitsAllocated"), integer(dataset, "BitsStored")
    if stored is None:
        if allocated != 8:
            raise UnreadableImage("image: BitsStored is missing; export it again")
        notes.append("bits_stored_assumed")
        stored = 8
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise UnsupportedImage(
            f"image: BitsStored is {stored} and BitsAllocated is {allocated}; give 8 to 16 bits "
            "stored in 8 or 16 allocated"
        )
    high = integer(dataset, "HighBit")
    if high not in (None, stored - 1):
        raise UnsupportedImage(
            f"image: HighBit is {high}; it must be BitsStored - 1 = {stored - 1}"
        )
    return allocated, stored


def frame_number(header: Header, frame: int | None) -> int:
    """The frame that is asked for. Raises InvalidFrame: missing for a loop, or out of range."""
    count = header.frames
    if frame is None and count > 1:
        raise InvalidFrame(f"frame: missing; the file has {count} frames; give 0 to {count - 1}")
    if frame is not None and frame >= count:
        raise InvalidFrame(
            f"frame: {frame} is out of range; the file has {count} frames; give 0 to {count - 1}"
        )
    return frame or 0


def values(dataset: Dataset, keyword: str) -> list[Any]:
    """The values of an element, none where it is absent or empty.

    Raises UnreadableImage: with the tag's name.
    """
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom parses at access, and raises many types
        raise UnreadableImage(f"image: {keyword} cannot be read; export it again") from None
    if value is None or (isinstance(value, str | bytes) and not value):
        return []
    return [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else [*value]


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first number of an element; None where it is absent or empty."""
    first = next(iter(values(dataset, keyword)), None)
    if first is None or (isinstance(first, str) and not first.strip(" \0")):
        return None
    try:
        found = float(first)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise UnreadableImage(f"image: {keyword} must be a finite number")
    return found


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first number of an element whose values are integers; None where it is absent."""
    found = number(dataset, keyword)
    if found is not None and found != int(found):
        raise UnreadableImage(f"image: {keyword} must be an integer")
    return None if found is None else int(found)


def required(dataset: Dataset, keyword: str) -> int:
    """The same of an element that must be present."""
    found = integer(dataset, keyword)
    if found is None:
        raise UnreadableImage(f"image: {keyword} is missing")
    return found


def code(dataset: Dataset, keyword: str, notes: list[str]) -> str | None:
    """A code string (PS3.5, 6.2: capitals), corrected where it is not one; None where absent."""
    first = next(iter(values(dataset, keyword)), None)
    if first is None:
        return None
    stated = str(first)
    corrected = stated.strip(" \0").upper()
    if corrected != stated.rstrip(" "):
        notes.append("code_string_mended")
    return corrected or None
