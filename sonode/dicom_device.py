"""The device of a DICOM header, as a pulled manifest and an imported cohort write it."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KEYWORDS = ("Manufacturer", "ManufacturerModelName")
_MAX_LENGTH = 64  # of each (LO, PS3.5, 6.2)


def device_name(header: Dataset) -> str:
    """Manufacturer and model, with single spaces; "" where the header has neither."""
    values = [header.get(it) or "" for it in KEYWORDS]
    # Several values, which neither may have, come of a backslash within a name.
    texts = [
        " ".join(map(str, it)) if isinstance(it, MutableSequence) else str(it) for it in values
    ]
    names = [" ".join(text.split())[:_MAX_LENGTH] for text in texts]
    return " ".join(name for name in names if name)
