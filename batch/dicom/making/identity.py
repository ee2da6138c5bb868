"""UIDs that follow from what an object tells, so that a second run makes the same objects.

A UID is 2.25 and a UUID (PS3.5, B.2), here one of version 5 (RFC 9562): a hash of names.
"""

from __future__ import annotations

import uuid

_SPACE = uuid.UUID("7a1f4c8e-0d52-5b7e-9a43-6f0b8d2c5e11")


def uid(*names: str, layout: str = "1") -> str:
    """The UID of these names: at most 64 characters, the same for the same names.

    `layout` is of an object: another one where what it holds of the same result changes.
    """
    lengths = ",".join(str(len(name)) for name in names)  # so that ("ab", "c") is not ("a", "bc")
    return f"2.25.{uuid.uuid5(_SPACE, '/'.join((layout, lengths, *names))).int}"
