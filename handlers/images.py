"""Encoded bytes -> grey pixels of the stored frame -> crop, within limits; CPU only."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from handlers.errors import (
    ImageTooLarge,
    InvalidRoI,
    RequestError,
    UnreadableImage,
    UnsupportedImage,
)
from handlers.requests import Explain, ScoringRequest
from model_def.preprocessing import (
    FORMATS,
    Pixels,
    Preprocessing,
    RoI,
    crop,
    resize,
    to_grey,
    unusable,
)

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 40_000_000  # an ultrasound frame has about 1 Mpx

# `decode` checks the header's size itself, before any pixel is decoded; Pillow would only warn.
Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes) -> Pixels:
    """Grey uint8 (H, W) as stored: an EXIF orientation is not applied, since RoIs refer to the
    stored frame.

    Raises:
        ImageTooLarge, UnsupportedImage, UnreadableImage: with the limit or what is taken.
    """
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(
            f"image: {len(data)} bytes; the limit is {MAX_BYTES}, send the lesion's frame alone",
            field="image",
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image)
            return to_grey(image)
    except UnidentifiedImageError as error:
        raise UnsupportedImage(
            f"image: not a format taken here; send {', '.join(FORMATS)}", field="image"
        ) from error
    except RequestError:
        raise
    except Exception as error:  # decoders raise many types on damaged bytes
        raise UnreadableImage(
            f"image: damaged or cut short ({type(error).__name__}); send the whole file",
            field="image",
        ) from error


def _check_header(image: Image.Image) -> None:
    """Refuse by what the header says, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(
            f"image: {width} x {height} pixels; the limit is {MAX_PIXELS} in all", field="image"
        )
    if reason := unusable(image):
        raise UnsupportedImage(f"image: {reason}", field="image")


@dataclass(frozen=True)
class Prepared:
    """A row ready for the network."""

    crop_HW: Pixels
    """The widened RoI at its own resolution, for overlays."""
    input_SS: Pixels
    """The same, resized to the network's input."""
    roi: RoI
    """The RoI that was scored, before widening."""
    explain: Explain | None
    warnings: list[str]


def prepare(request: ScoringRequest, facts: Preprocessing) -> Prepared:
    """Decode, check the RoI against the frame, crop and resize.

    Raises:
        InvalidRoI: empty or outside the frame; it is never clipped in silence.
        RequestError: whatever `decode` raises.
    """
    frame_HW = decode(request.image)
    height, width = frame_HW.shape
    warnings = []
    roi = request.roi
    if roi is None:
        roi = RoI(0, 0, width, height)
        warnings.append("whole_frame")
    if not (0 <= roi.x_min < roi.x_max <= width and 0 <= roi.y_min < roi.y_max <= height):
        raise InvalidRoI(
            f"roi: {list(roi)} is empty or outside the {width} x {height} frame; give "
            "x_min < x_max and y_min < y_max inside it",
            field="roi",
        )
    crop_HW = crop(frame_HW, roi, facts)
    return Prepared(crop_HW, resize(crop_HW, facts), roi, request.explain, warnings)
