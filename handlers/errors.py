"""Why a row has no score.

    RequestError                  status  code
    ├── MalformedRequest          400     malformed_request     fields, JSON, base64, numbers
    ├── MissingImage              400     missing_image         no bytes in the image field
    ├── ImageTooLarge             413     image_too_large       bytes or pixels over the limit
    ├── UnsupportedImage          415     unsupported_image     format, bit depth, several frames
    ├── UnreadableImage           422     unreadable_image      truncated or damaged
    ├── InvalidRoI                422     invalid_roi           empty, or outside the frame
    └── InferenceFailed           500     inference_failed      not the client's fault

Codes are stable: clients and nightly reports rely on them. Messages name field, value and remedy,
and never repeat what could identify a patient.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class RequestError(Exception):
    """One row's failure; its neighbours in the batch are unaffected."""

    status: ClassVar[int]
    code: ClassVar[str]
    stage: ClassVar[Literal["preprocess", "inference"]] = "preprocess"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class MalformedRequest(RequestError):  # noqa: N818 - the tree reads better so
    """The request cannot be understood."""

    status, code = 400, "malformed_request"


class MissingImage(RequestError):  # noqa: N818
    """There are no image bytes."""

    status, code = 400, "missing_image"


class ImageTooLarge(RequestError):  # noqa: N818
    """The image exceeds a limit that protects the worker."""

    status, code = 413, "image_too_large"


class UnsupportedImage(RequestError):  # noqa: N818
    """The bytes are no image that is taken here."""

    status, code = 415, "unsupported_image"


class UnreadableImage(RequestError):  # noqa: N818
    """The image claims a known format and cannot be decoded."""

    status, code = 422, "unreadable_image"


class InvalidRoI(RequestError):  # noqa: N818
    """The box does not lie inside the frame."""

    status, code = 422, "invalid_roi"


class InferenceFailed(RequestError):  # noqa: N818
    """The forward pass failed or gave no finite number."""

    status, code = 500, "inference_failed"
    stage = "inference"
