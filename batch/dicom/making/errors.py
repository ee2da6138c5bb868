"""Why no objects are made of an image; no message quotes the image's file."""

from __future__ import annotations


class CannotWrite(Exception):  # noqa: N818 - reads as what it is
    """No objects can be made of an image.

    Attributes:
        code: a name for programs.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
