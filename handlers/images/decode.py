"""Encoded bytes -> grey pixels of the stored frame -> crop, within limits; CPU only."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from handlers.errors import (
    ImageTooLarge,
    InvalidFrame,
    InvalidRoI,
    RequestError,
    UnreadableImage,
    UnsupportedImage,
)
from handlers.images import dicom, quality
from handlers.images.frame import Frame, refused
from handlers.requests import Explain, ScoringRequest
from model_def.image_formats import (
    FORMATS,
    check_whole,
    opened,
    stored_pixels,
    unusable,
)
from model_def.limits import MAX_BYTES, MAX_PIXELS
from model_def.preprocessing import Pixels, Preprocessing, RoI, crop, resize

# Pillow logs the tags of a file and warns of odd metadata; neither may reach a worker's log.
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def decode(data: bytes, frame: int | None = None) -> Frame:
    """The stored frame of an image file, or frame number `frame` (from 0) of a DICOM file.

    An EXIF orientation is not applied, since RoIs refer to the stored frame; the warning
    `exif_orientation_ignored` says that there is one. Of a JPEG file that lists several pictures
    the first is taken; `further_pictures_ignored` says so.

    Raises:
        ImageTooLarge, UnsupportedImage, UnreadableImage, InvalidFrame, MissingDecoder: with the
            limit or the supported values.
    """
    if dicom.is_dicom(data):
        return dicom.decode(data, frame)
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(
            f"image: {len(data)} bytes; the limit is {MAX_BYTES}; send only the lesion's frame",
            field="image",
        )
    if frame not in (None, 0):
        raise InvalidFrame(
            f"frame: {frame} is out of range; a still image has only frame 0", field="frame"
        )
    try:
        with refused(), opened(data) as image:
            _check_header(image)
            check_whole(image, data)
            stored, turned = stored_pixels(image)
            further = image.format == "MPO"
    except UnidentifiedImageError:
        raise UnsupportedImage(
            f"image: unsupported format; send {', '.join(FORMATS)} or DICOM", field="image"
        ) from None
    except RequestError:
        raise
    except Exception as error:  # decoders raise many types on damaged bytes
        raise UnreadableImage(
            f"image: damaged or truncated ({type(error).__name__}); send the complete file",
            field="image",
        ) from None
    notes = {"exif_orientation_ignored": turned, "further_pictures_ignored": further}
    return Frame.of(stored, warnings=tuple(note for note, holds in notes.items() if holds))


def _check_header(image: Image.Image) -> None:
    """Refuse by what the header says, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(
            f"image: {width} x {height} pixels; the limit is {MAX_PIXELS} in total; crop it",
            field="image",
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
    frame_size: tuple[int, int]
    """Height and width of the full stored frame."""
    frame_HW: Pixels | None = None
    """That frame, for overlays; only where `explain` asks for one in it."""


def prepare(request: ScoringRequest, facts: Preprocessing) -> Prepared:
    """Decode, check the RoI against the frame, crop and resize.

    Without a RoI it is the one usable tissue region of a DICOM file, or else the whole frame; a
    warning says which.

    Raises:
        InvalidRoI: empty or outside the frame; it is never clipped in silence.
        RequestError: whatever `decode` raises.
    """
    frame = decode(request.image, request.frame)
    height, width = frame.grey_HW.shape
    notes = list(frame.warnings)
    roi = request.roi
    if roi is None:
        notes.append("ultrasound_region_used" if frame.tissue else "whole_frame")
        roi = frame.tissue or RoI(0, 0, width, height)
    if not roi.lies_inside(width, height):
        raise InvalidRoI(
            f"roi: {list(roi)} is empty or outside the {width} x {height} frame; send "
            "x_min < x_max and y_min < y_max inside it",
            field="roi",
        )
    crop_HW = crop(frame.grey_HW, roi, facts)
    if crop_HW.size < frame.grey_HW.size:
        crop_HW = crop_HW.copy()  # a view would keep the whole frame in memory
    input_SS = resize(crop_HW, facts)
    notes += quality.grey_warnings(roi, input_SS)
    if frame.has_colour_in(roi):
        notes.append("colour_doppler")
    return Prepared(
        crop_HW=crop_HW,
        input_SS=input_SS,
        roi=roi,
        explain=request.explain,
        warnings=notes,
        frame_size=(height, width),
        frame_HW=frame.grey_HW if request.explain and request.explain.full_frame else None,
    )
