"""Warnings about a crop: it is small, flat or saturated.

The thresholds are ours. They mark images whose score deserves a second look; no score is withheld.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from model_def.preprocessing import Pixels, RoI

MAX_ENLARGEMENT = 8
"""A RoI side below 1/8 of the network's input (32 pixels for 256) is nearly all interpolation."""
FLAT_SPREAD = 12
"""Grey levels between the 5th and 95th percentile: speckle alone spreads over more."""
SATURATED_LEVEL, SATURATED_SHARE = 250, 0.25
"""A quarter of the crop at full scale: what was brighter is lost."""


def grey_warnings(roi: RoI, input_SS: Pixels) -> list[str]:
    """Warnings from the RoI's size and the network's input (S, S)."""
    warnings = []
    if min(roi.x_max - roi.x_min, roi.y_max - roi.y_min) * MAX_ENLARGEMENT < len(input_SS):
        warnings.append("small_roi")
    share = np.cumsum(Image.fromarray(input_SS).histogram()) / input_SS.size
    if np.searchsorted(share, 0.95) - np.searchsorted(share, 0.05) < FLAT_SPREAD:
        warnings.append("flat_image")
    if 1 - share[SATURATED_LEVEL - 1] > SATURATED_SHARE:
        warnings.append("saturated_image")
    return warnings
