"""Why a row has no score.

    RowError                      status  code
    ├── MalformedRequest          400     malformed_request     fields, JSON, base64, numbers
    ├── MissingImage              400     missing_image         no bytes in the image field
    ├── ImageTooLarge             413     image_too_large       bytes or pixels over the limit
    ├── UnsupportedImage          415     unsupported_image     format, bit depth, several frames
    ├── UnsupportedEncoding       415     unsupported_encoding  Content-Encoding of the body
    ├── MissingDecoder            415     missing_decoder       DICOM compression; names the package
    ├── UnreadableImage           422     unreadable_image      truncated or damaged
    ├── InvalidRoI                422     invalid_roi           empty, or outside the frame
    ├── InvalidFrame              422     invalid_frame         number missing, or out of range
    ├── PreprocessFailed          500     preprocess_failed     an internal error; see the log
    ├── InferenceFailed           500     inference_failed      an internal error; see the log
    ├── ExplanationFailed         500     explanation_failed    send it again without `explain`
    └── ExplanationTooLong        503     explanation_too_long  the batch's time limit is reached

Those about an image come from `model_def/images/errors.py`, since training reads images, too.
Codes are stable: clients and nightly reports rely on them. Messages name field, value and remedy,
and never repeat what could identify a patient.
"""

from __future__ import annotations

from model_def.images.errors import (
    ImageTooLarge,
    InvalidFrame,
    MissingDecoder,
    RowError,
    UnreadableImage,
    UnsupportedImage,
)

__all__ = [
    "ExplanationFailed",
    "ExplanationTooLong",
    "ImageTooLarge",
    "InferenceFailed",
    "InvalidFrame",
    "InvalidRoI",
    "MalformedRequest",
    "MissingDecoder",
    "MissingImage",
    "PreprocessFailed",
    "RowError",
    "UnreadableImage",
    "UnsupportedEncoding",
    "UnsupportedImage",
]


class MalformedRequest(RowError):  # noqa: N818 - the tree reads better so
    """The request cannot be understood."""

    status, code = 400, "malformed_request"


class MissingImage(RowError):  # noqa: N818
    """There are no image bytes."""

    status, code = 400, "missing_image"


class UnsupportedEncoding(RowError):  # noqa: N818
    """The body has a Content-Encoding that is not supported."""

    status, code = 415, "unsupported_encoding"


class InvalidRoI(RowError):  # noqa: N818
    """The box does not lie inside the frame."""

    status, code = 422, "invalid_roi"


class PreprocessFailed(RowError):  # noqa: N818
    """An unexpected error; the other rows of the batch continue."""

    status, code = 500, "preprocess_failed"


class InferenceFailed(RowError):  # noqa: N818
    """The forward pass failed, or its output is NaN or infinite."""

    status, code = 500, "inference_failed"
    stage = "inference"


class ExplanationFailed(RowError):  # noqa: N818
    """The heat map failed."""

    status, code = 500, "explanation_failed"
    stage = "explanation"


class ExplanationTooLong(RowError):  # noqa: N818
    """The row's heat maps would delay the other rows of the batch for too long."""

    status, code = 503, "explanation_too_long"
    stage = "explanation"
