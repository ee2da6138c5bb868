"""A decoded frame as it was stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model_def.images import jpeg_checks, png_checks
from model_def.images.errors import ImageTooLarge, UnreadableImage, UnsupportedImage
from model_def.preprocessing import Pixels, RoI

COLOUR_SPREAD, COLOUR_SHARE = 64, 0.01
"""Largest minus smallest of R, G, B: a tinted grey map stays below, Doppler's red and blue do not;
a hundredth of the crop leaves out a caliper or a letter."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Pixels of one stored frame and what its file says about them."""

    grey_HW: Pixels
    """Intensities, uint8; colour by the ITU-R 601 luma weights."""
    colour: Image.Image | None
    """The same in RGB; None where the stored frame is grey."""
    warnings: tuple[str, ...]
    tissue: RoI | None
    """The one usable two-dimensional tissue region of a DICOM file."""
    flow: tuple[RoI, ...]
    """Colour flow regions of a DICOM file, as it states them."""

    @classmethod
    def of(
        cls,
        stored: Image.Image,
        *,
        warnings: tuple[str, ...] = (),
        tissue: RoI | None = None,
        flow: tuple[RoI, ...] = (),
    ) -> Frame:
        """A frame from its stored pixels in mode L or RGB."""
        grey = stored.mode == "L"
        return cls(
            grey_HW=np.asarray(stored if grey else stored.convert("L")),
            colour=None if grey else stored,
            warnings=warnings,
            tissue=tissue,
            flow=flow,
        )

    def has_colour_in(self, roi: RoI) -> bool:
        """Whether the file states colour flow in the RoI, or its pixels there are coloured."""
        if any(roi.overlaps(region) for region in self.flow):
            return True
        return self.colour is not None and is_coloured(self.colour, roi)


def check_jpeg(encoded: bytes) -> None:
    """Refuse a JPEG, of a file or of a DICOM frame (8 bits, DCT), that is not whole.

    Raises ImageTooLarge, UnreadableImage, UnsupportedImage.
    """
    with refused():
        jpeg_checks.check(encoded)


@contextmanager
def refused() -> Iterator[None]:
    """Turn what the checks of a format raise into the row's error."""
    try:
        yield
    except jpeg_checks.TooManyScans as error:
        raise ImageTooLarge(f"image: {error}") from None
    except (jpeg_checks.Damaged, png_checks.Damaged) as error:
        raise UnreadableImage(f"image: {error}; give the complete file") from None
    except jpeg_checks.Unverifiable as error:
        raise UnsupportedImage(f"image: {error}") from None


def is_coloured(frame: Image.Image, roi: RoI) -> bool:
    """Whether an RGB frame has colour inside the RoI."""
    red, green, blue = (np.asarray(band) for band in frame.crop(roi).split())
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return bool(np.count_nonzero(spread >= COLOUR_SPREAD) > COLOUR_SHARE * spread.size)
