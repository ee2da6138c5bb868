"""Why a row has no score.

    RequestError                  status  code
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

Codes are stable: clients and nightly reports rely on them. Messages name field, value and remedy,
and never repeat what could identify a patient.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class RequestError(Exception):
    """One row's failure; its neighbours in the batch are unaffected."""

    status: ClassVar[int]
    code: ClassVar[str]
    stage: ClassVar[Literal["preprocess", "inference", "explanation"]] = "preprocess"

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
    """The bytes are not an image of a supported format."""

    status, code = 415, "unsupported_image"


class UnsupportedEncoding(RequestError):  # noqa: N818
    """The body has a Content-Encoding that is not supported."""

    status, code = 415, "unsupported_encoding"


class MissingDecoder(RequestError):  # noqa: N818
    """The image's compression needs a package that is not installed."""

    status, code = 415, "missing_decoder"


class UnreadableImage(RequestError):  # noqa: N818
    """The image has a supported format but cannot be decoded."""

    status, code = 422, "unreadable_image"


class InvalidRoI(RequestError):  # noqa: N818
    """The box does not lie inside the frame."""

    status, code = 422, "invalid_roi"


class InvalidFrame(RequestError):  # noqa: N818
    """The file has several frames and the request names none, or it has no such frame."""

    status, code = 422, "invalid_frame"


class PreprocessFailed(RequestError):  # noqa: N818
    """An unexpected error; the other rows of the batch continue."""

    status, code = 500, "preprocess_failed"


class InferenceFailed(RequestError):  # noqa: N818
    """The forward pass failed, or its output is NaN or infinite."""

    status, code = 500, "inference_failed"
    stage = "inference"


class ExplanationFailed(RequestError):  # noqa: N818
    """The heat map failed."""

    status, code = 500, "explanation_failed"
    stage = "explanation"


class ExplanationTooLong(RequestError):  # noqa: N818
    """The row's heat maps would delay the other rows of the batch for too long."""

    status, code = 503, "explanation_too_long"
    stage = "explanation"
