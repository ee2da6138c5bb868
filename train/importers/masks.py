"""The lesion's box from a mask."""

from __future__ import annotations

import numpy as np

from model_def.preprocessing import Pixels, RoI

MASK_THRESHOLD = 128


def mask_greys(mask_HW: Pixels) -> list[int]:
    """The values but 0 that a mask holds."""
    return [int(grey) for grey in np.flatnonzero(np.bincount(mask_HW.ravel())) if grey]


def several_lesions(greys: list[int]) -> bool:
    """Whether the greys of a mask are those of several lesions, each with one of its own.

    Few greys and one between black and white are no loss: 60 masks of BUSI and 60 rectangles, each
    as JPEG of quality 30 to 100, held more, or none between.
    """
    return 1 < len(greys) < 8 and any(16 <= grey < 240 for grey in greys)


def mask_box(mask_HW: Pixels) -> RoI | None:
    """The bounding box of the lesion's pixels in a mask, half-open; None where there are none.

    Of a two-valued mask (0 and 1, 0 and 255) they are those that are not 0. Any other was 0 and
    255 before it was stored with a loss, as JPEG, say: they are those from `MASK_THRESHOLD` on.
    """
    rows, columns = np.nonzero(mask_HW >= (1 if len(mask_greys(mask_HW)) <= 1 else MASK_THRESHOLD))
    if rows.size == 0:
        return None
    return RoI(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
