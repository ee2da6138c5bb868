"""Which image files are supported, and their stored pixels in 8 bits, in training and in serving.

* RoIs refer to the stored frame, so no EXIF orientation is applied; `stored_pixels` reports one.
* 16 bits a channel become 8 by their high byte, never by the image's own range: a full-range image
  keeps its grey levels (257 x g and 256 x g both give g), and equal samples give equal pixels in
  any two images. 12-bit samples in the low bits of a 16-bit file come out nearly black.
* Files beyond the limits below are refused: they protect a worker while it decodes.
* Damage that a file's own checksums or decoder can detect is refused: PNG chunks, JPEG (in TIFF,
  too), TIFF by deflate. BMP, WebP and other TIFFs have no checksum: zeroed bytes read as pixels.
* Of a JPEG file of several pictures, the first is used.
* Colour profiles and gamma are not applied; an alpha channel is ignored: it holds no echo.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from model_def.images import jpeg_checks, png_checks, tiff_checks
from model_def.limits import MAX_TILE_PIXELS

# Who opens an image checks the header's size, before any pixel is decoded; Pillow would only warn.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I;16L")

# TIFF 6.0 tags
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_TILE_WIDTH, _TILE_LENGTH = 322, 323

# Pillow turns TIFF, and TIFF alone, while it loads: what each orientation (EXIF 2.32, tag 0x0112)
# takes to be turned back.
_TURN_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def opened(data: bytes) -> Image.Image:
    """An image file of `FORMATS`, its header read and nothing decoded.

    Raises:
        UnidentifiedImageError: of another format.
        Exception: of many types, on damaged bytes.
    """
    if data.startswith(png_checks.SIGNATURE):
        data = png_checks.lean(data)
    return Image.open(io.BytesIO(data), formats=FORMATS)


def check_whole(image: Image.Image, data: bytes) -> None:
    """Make sure, as far as its format allows, that a usable file holds its whole picture.

    `data` is the file that `image` was opened from.

    Raises jpeg_checks.TooManyScans, jpeg_checks.Damaged, jpeg_checks.Unverifiable.
    """
    if image.format in ("JPEG", "MPO"):
        jpeg_checks.check(data)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        tiff_checks.check(image, data)


def unusable(image: Image.Image) -> str | None:
    """Why an opened image (of `FORMATS`) is not supported, in training or serving; None if it is.

    Says so from the header, before any pixel is decoded.
    """
    if image.mode not in MODES:
        return f"unsupported pixel mode {image.mode}; use 8 or 16 bits a channel, unsigned"
    # n_frames would walk through the whole file
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return "several frames; give one"
    if image.format == "TIFF":
        return _unusable_tiff(image)
    return None


def _unusable_tiff(image: Image.Image) -> str | None:
    """Samples that Pillow would hand over unscaled, unsigned or not inverted."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    if any(kind != 1 for kind in tags.get(_SAMPLE_FORMAT, ())):
        return "signed or floating-point samples; use unsigned integers"
    width, height = image.size
    if tags.get(_TILE_WIDTH, 1) * tags.get(_TILE_LENGTH, 1) > max(width * height, MAX_TILE_PIXELS):
        return "tiles are larger than the image; export it again"  # a tile is decoded as a whole
    if image.mode.startswith("I;16"):
        if tags.get(_BITS) != (16,):
            return "samples of 9 to 15 bits; use 8 or 16"
        if tags.get(_PHOTOMETRIC) != 1:
            return "16 bits with white as zero; use black as zero"
    return None


def stored_pixels(image: Image.Image) -> tuple[Image.Image, bool]:
    """The stored pixels of an opened image that is usable, as mode L or RGB.

    Returns the pixels, and whether a viewer that applies EXIF would show them turned or mirrored.

    Raises Exception: of many types, on damaged bytes.
    """
    turned_by_pillow = image.format == "TIFF"
    orientation = _orientation(image) if turned_by_pillow else 1
    image.load()
    if not turned_by_pillow:  # read late: the metadata of a PNG may follow its pixels
        orientation = _orientation(image)
    if image.mode.startswith("I;16"):
        image_8 = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "LA":
        image_8 = image.getchannel(0)
    elif image.mode in ("P", "PA", "RGBA"):
        image_8 = image.convert("RGBA").convert("RGB")
    elif image.mode in ("1", "CMYK"):
        image_8 = image.convert("L" if image.mode == "1" else "RGB")
    else:
        image_8 = image
    turn_back = _TURN_BACK.get(orientation)
    if turned_by_pillow and turn_back is not None:
        image_8 = image_8.transpose(turn_back)
    return image_8, turn_back is not None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata raises many types; the pixels do not depend on it
        return 1
