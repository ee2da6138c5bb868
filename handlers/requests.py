"""A request row, as TorchServe hands it over, -> `ScoringRequest`.

The batch job builds the same rows, so that one parser decides for both ways:

* raw bytes: `{"body": bytes}`, RoI in the header `X-Roi: x0,y0,x1,y1`, method in `X-Explain`;
* multipart: `{"image": bytes, "roi": b"x0,y0,x1,y1", "explain": b"gradcam:alnm", ...}`;
* JSON: `{"body": {"image": base64, "roi": [x0, y0, x1, y1], "explain": "gradcam", ...}}`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handlers.attribution import METHODS
from handlers.errors import InvalidRoI, MalformedRequest, MissingImage
from model_def.preprocessing import RoI

# `study_id` is for the gateway's routing; the score does not depend on it.
FIELDS = ("image", "roi", "explain", "frame", "study_id")
MAX_TEXT = 256  # characters of any field but the image; long digits are costly to parse


@dataclass(frozen=True)
class Explain:
    """Which heat maps a row asks for."""

    method: str
    heads: tuple[str, ...]


@dataclass(frozen=True)
class ScoringRequest:
    """One row's question."""

    image: bytes
    roi: RoI | None
    explain: Explain | None


def parse(
    row: Mapping[str, object], headers: Mapping[str, str], heads: Sequence[str]
) -> ScoringRequest:
    """Read one row; `heads` are the names that an explanation may ask for.

    Raises:
        MalformedRequest, MissingImage, InvalidRoI: naming the field and the remedy.
    """
    # TorchServe looks headers up by exact case; HTTP/2 gateways send them in lower case.
    lowered = {name.lower(): value for name, value in headers.items()}
    fields = _fields(row, lowered)
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise MalformedRequest(
            f"{len(unknown)} unknown field(s); known are {', '.join(FIELDS)}", field="body"
        )
    _check_frame(fields.get("frame"))
    explain = fields.get("explain")
    if explain is None and lowered.get("explain") == "True":  # TorchServe's mark of /explanations
        explain = METHODS[0]
    return ScoringRequest(
        image=_image(fields.get("image")),
        roi=_roi(fields.get("roi")),
        explain=_explain(explain, heads),
    )


def _fields(row: Mapping[str, object], headers: Mapping[str, str]) -> dict[str, object]:
    """The named fields, whichever of the three forms the row has."""
    if "body" not in row and "data" not in row:
        return dict(row)
    body = row["body"] if "body" in row else row["data"]
    if "json" in headers.get("content-type", "") and isinstance(body, bytes | bytearray):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise MalformedRequest("body: not valid JSON; send one object", field="body") from error
    if isinstance(body, Mapping):
        fields = dict(body)
        if isinstance(fields.get("image"), str):
            fields["image"] = _base64(fields["image"])
        return fields
    if isinstance(body, bytes | bytearray):
        return {
            "image": body,
            "roi": headers.get("x-roi"),
            "explain": headers.get("x-explain"),
            "frame": headers.get("x-frame"),
        }
    raise MalformedRequest("body: not an object; send {image, roi, explain}", field="body")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequest(
            "image: not base64; encode the file's bytes", field="image"
        ) from error


def _image(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise MissingImage("image: absent; send the encoded file's bytes", field="image")
    if not value:
        raise MissingImage("image: 0 bytes; send the encoded file's bytes", field="image")
    return bytes(value)


def _text(value: object, field: str) -> str:
    """A short text field that may have come as bytes of a form."""
    if isinstance(value, bytes | bytearray):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"{field}: not UTF-8 text", field=field) from error
    if not isinstance(value, str):
        raise MalformedRequest(f"{field}: {type(value).__name__} is no text", field=field)
    if len(value) > MAX_TEXT:
        raise MalformedRequest(f"{field}: longer than {MAX_TEXT} characters", field=field)
    return value.strip()


def _roi(value: object) -> RoI | None:
    """Four whole numbers from a list or from text; None where none is given."""
    if value is None:
        return None
    remedy = "give x_min,y_min,x_max,y_max in whole pixels of the frame"
    corners: Sequence[object] = (
        value if isinstance(value, list | tuple) else _text(value, "roi").strip("[]").split(",")
    )
    if len(corners) != 4:
        raise MalformedRequest(f"roi: {len(corners)} numbers; {remedy}", field="roi")
    whole = []
    for corner in corners:
        try:
            number = float(corner)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise MalformedRequest(f"roi: a corner is no number; {remedy}", field="roi") from error
        if isinstance(corner, bool) or not math.isfinite(number) or number != int(number):
            raise InvalidRoI(f"roi: a corner is not a whole number; {remedy}", field="roi")
        whole.append(int(number))
    return RoI(*whole)


def _check_frame(value: object) -> None:
    """Still images have one frame, number 0."""
    if value is not None and str(value if isinstance(value, int) else _text(value, "frame")) != "0":
        raise MalformedRequest("frame: a still image has frame 0 only", field="frame")


def _explain(value: object, heads: Sequence[str]) -> Explain | None:
    """`method` or `method:head,head`; all heads where none is named."""
    if value is None:
        return None
    method, _, named = _text(value, "explain").partition(":")
    if method not in METHODS:
        raise MalformedRequest(
            f"explain: no such method; give {' or '.join(METHODS)}", field="explain"
        )
    chosen = tuple(name.strip() for name in named.split(",")) if named else tuple(heads)
    if not set(chosen) <= set(heads):
        raise MalformedRequest(
            f"explain: names a head that the model lacks; it has {', '.join(heads)}",
            field="explain",
        )
    return Explain(method, chosen)
