"""The digest of an image's pixels, by which a cohort and a reader's record name the same image."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def pixels_sha256(grey_HW: npt.NDArray[np.uint8]) -> str:
    """SHA-256, in hex, of an image's size and its pixels (H, W), however its file stores them."""
    height, width = grey_HW.shape
    return hashlib.sha256(f"{width}x{height}:".encode() + grey_HW.tobytes()).hexdigest()
