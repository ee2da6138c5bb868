"""Why an image is not taken, in training, in TorchServe and in the batch.

`handlers/errors.py` has the other reasons for which a row has no score. Messages name field, value
and remedy, and never repeat what could identify a patient.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class RowError(Exception):
    """One row's failure; its neighbours in the batch or the cohort are unaffected."""

    status: ClassVar[int]
    code: ClassVar[str]
    stage: ClassVar[Literal["preprocess", "inference", "explanation"]] = "preprocess"

    @property
    def field(self) -> str | None:
        """What the message begins with (`roi: empty`); None of an internal error."""
        name, colon, _ = str(self).partition(":")
        return name if colon else None


class ImageTooLarge(RowError):  # noqa: N818 - the tree reads better so
    """The image exceeds a limit that protects the worker."""

    status, code = 413, "image_too_large"


class UnsupportedImage(RowError):  # noqa: N818
    """The bytes are not an image of a supported format."""

    status, code = 415, "unsupported_image"


class MissingDecoder(RowError):  # noqa: N818
    """The image's compression needs a package that is not installed."""

    status, code = 415, "missing_decoder"


class UnreadableImage(RowError):  # noqa: N818
    """The image has a supported format but cannot be decoded."""

    status, code = 422, "unreadable_image"


class InvalidFrame(RowError):  # noqa: N818
    """The file has several frames and the request names none, or it has no such frame."""

    status, code = 422, "invalid_frame"
