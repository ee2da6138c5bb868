"""A heat map as a transparent picture, in the bands and colours of the product's other pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from model_def.overlay import MAGNITUDE_BANDS

SIDE = 256  # pixels; the page stretches it over the map's box


def layer(grid: Sequence[Sequence[float]]) -> bytes:
    """PNG with alpha of a map >= 0, (h, w) values; each band covers a tenth of its maximum.

    A map that is zero everywhere is transparent everywhere.
    """
    map_hw = np.asarray(grid, np.float32)
    scaled_hw = map_hw / (map_hw.max() or 1.0) * 255
    cells = Image.fromarray(scaled_hw.round().astype(np.uint8))
    value_HW = np.asarray(cells.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    colours_B3, opacities_B = MAGNITUDE_BANDS
    rgba_B4 = np.column_stack([colours_B3, opacities_B])
    rgba_V4 = np.round(255 * rgba_B4[np.arange(256) * len(rgba_B4) // 256]).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(rgba_V4[value_HW]).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def legend() -> bytes:
    """PNG of all colours of a map, from none on the left to the maximum on the right."""
    return layer([[step / SIDE for step in range(SIDE + 1)]])
