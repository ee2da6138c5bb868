"""An image file's bytes -> grey pixels of one stored frame, within limits; CPU only.

The one way from bytes to pixels: training, TorchServe and the batch read every image by `decode`.
"""

from __future__ import annotations

import logging
import warnings

from PIL import Image, UnidentifiedImageError

from model_def.images.dicom.decode import decode as decode_dicom
from model_def.images.dicom.file import is_dicom
from model_def.images.errors import (
    ImageTooLarge,
    InvalidFrame,
    RowError,
    UnreadableImage,
    UnsupportedImage,
)
from model_def.images.formats import (
    FORMATS,
    check_whole,
    opened,
    stored_pixels,
    unusable,
)
from model_def.images.frame import Frame, refused
from model_def.limits import MAX_BYTES, MAX_PIXELS

# Pillow logs the tags of a file and warns of odd metadata; neither may reach a worker's log.
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def decode(data: bytes, frame: int | None = None) -> Frame:
    """The stored frame of an image file, or frame number `frame` (from 0) of a DICOM file.

    An EXIF orientation is not applied, since RoIs refer to the stored frame; the warning
    `exif_orientation_ignored` says that there is one. Of a JPEG file that lists several pictures
    the first is taken; `further_pictures_ignored` says so.

    Raises ImageTooLarge, UnsupportedImage, UnreadableImage, InvalidFrame, MissingDecoder: with the
    limit or the supported values.
    """
    if is_dicom(data):
        return decode_dicom(data, frame)
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(
            f"image: {len(data)} bytes; the limit is {MAX_BYTES}; give only the lesion's frame"
        )
    if frame not in (None, 0):
        raise InvalidFrame(f"frame: {frame} is out of range; a still image has only frame 0")
    try:
        with refused(), opened(data) as image:
            _check_header(image)
            check_whole(image, data)
            stored, turned = stored_pixels(image)
            further = image.format == "MPO"
    except UnidentifiedImageError:
        raise UnsupportedImage(
            f"image: unsupported format; give {', '.join(FORMATS)} or DICOM"
        ) from None
    except RowError:
        raise
    except Exception as error:  # decoders raise many types on damaged bytes
        raise UnreadableImage(
            f"image: damaged or truncated ({type(error).__name__}); give the complete file"
        ) from None
    notes = {"exif_orientation_ignored": turned, "further_pictures_ignored": further}
    return Frame.of(stored, warnings=tuple(note for note, holds in notes.items() if holds))


def _check_header(image: Image.Image) -> None:
    """Refuse by what the header says, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(
            f"image: {width} x {height} pixels; the limit is {MAX_PIXELS} in total; crop it"
        )
    if reason := unusable(image):
        raise UnsupportedImage(f"image: {reason}")
