"""The fields of a request row -> `ScoringRequest`; `handlers.bodies` has the forms of a row.

`explain` is text, `METHOD[:HEAD,HEAD][+full_frame][+grid]`, for example `gradcam:alnm+grid`; in
JSON it may also be an object, `{"method": "gradcam", "heads": ["alnm"], "full_frame": false,
"grid": true}`, of which only `method` is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handlers import bodies
from handlers.errors import InvalidRoI, MalformedRequest, MissingImage
from model_def.limits import MAX_TEXT
from model_def.preprocessing import RoI

# `study_id` is accepted and changes nothing: the gateway reads the header X-Study-Id alone.
FIELDS = ("image", "roi", "explain", "frame", "study_id")
METHODS = ("gradcam", "integrated_gradients", "occlusion", "guided_gradcam")
"""Of heat maps; the first is the default of `/explanations`."""
EXTRAS = ("full_frame", "grid")  # what `explain` can add to the overlay of the crop
# An integer as text. Python's float() also takes `1_0` and the digits of every script.
INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")


@dataclass(frozen=True)
class Explain:
    """Which heat maps a row asks for: one of `method` for each of `heads`."""

    method: str
    heads: tuple[str, ...]
    full_frame: bool = False
    """Whether to draw the map in the whole frame as well."""
    grid: bool = False
    """Whether to return the map's values as well."""


@dataclass(frozen=True)
class ScoringRequest:
    """One row as it was asked for."""

    image: bytes
    roi: RoI | None
    explain: Explain | None
    frame: int | None = None
    """Number of the frame, from 0; None where the row names none."""


def parse(
    row: Mapping[str, object], headers: Mapping[str, str], heads: Sequence[str]
) -> ScoringRequest:
    """Read one row; `heads` are the names that an explanation may ask for.

    Raises MalformedRequest, MissingImage, ImageTooLarge, UnsupportedEncoding, InvalidRoI: naming
    the field and the remedy.
    """
    # TorchServe looks headers up by exact case; HTTP/2 gateways send them in lower case.
    lowered = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    fields = bodies.fields(row, lowered)
    if unknown := set(fields) - set(FIELDS):
        raise MalformedRequest(
            f"body: {len(unknown)} unknown field(s); use only {', '.join(FIELDS)}"
        )
    explain = fields.get("explain")
    if explain is None and lowered.get("explain") == "True":  # TorchServe's mark of /explanations
        explain = METHODS[0]
    return ScoringRequest(
        image=_image(fields.get("image")),
        roi=_roi(fields.get("roi")),
        explain=_explain(explain, heads),
        frame=_frame(fields.get("frame")),
    )


def _image(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise MissingImage("image: missing; send the bytes of the image file")
    if not value:
        raise MissingImage("image: empty; send the bytes of the image file")
    return bytes(value)


def _text(value: object, field: str) -> str:
    """A short text field that may have come as bytes of a form."""
    if isinstance(value, bytes | bytearray):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"{field}: must be UTF-8 text") from error
    if not isinstance(value, str):
        raise MalformedRequest(f"{field}: expected text, got {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise MalformedRequest(f"{field}: {len(value)} characters; the limit is {MAX_TEXT}")
    return value.strip()


def _roi(value: object) -> RoI | None:
    """Four integers from a list or from text; None where none is given."""
    if value is None:
        return None
    remedy = "send x_min,y_min,x_max,y_max in integer pixels of the frame"
    corners: Sequence[object] = (
        value if isinstance(value, list | tuple) else _text(value, "roi").strip("[]").split(",")
    )
    if len(corners) != 4:
        raise MalformedRequest(f"roi: expected 4 numbers, got {len(corners)}; {remedy}")
    integers = []
    for corner in corners:
        try:
            number = float(corner)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise MalformedRequest(f"roi: a coordinate is not a number; {remedy}") from error
        odd = isinstance(corner, str) and not INTEGER.fullmatch(corner.strip())
        if odd or isinstance(corner, bool) or not math.isfinite(number) or number != int(number):
            raise InvalidRoI(f"roi: a coordinate is not an integer; {remedy}")
        integers.append(int(number))
    return RoI(*integers)


def _frame(value: object) -> int | None:
    """The frame's number, from 0; None where none is given."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        text = _text(value, "frame")
        number = int(text) if re.fullmatch("[0-9]{1,9}", text) else -1
    if not 0 <= number < 10**9:
        raise MalformedRequest("frame: must be a non-negative integer; the first frame is 0")
    return number


def _explain(value: object, heads: Sequence[str]) -> Explain | None:
    """One method, the heads named (all where none is), and what to add to the overlay."""
    if value is None:
        return None
    fields = dict(value) if isinstance(value, Mapping) else _explain_fields(_text(value, "explain"))
    unknown = set(fields) - {"method", "heads", *EXTRAS}
    if unknown:
        raise MalformedRequest(
            f"explain: {len(unknown)} unknown part(s); send METHOD[:HEAD,HEAD]"
            f"{''.join(f'[+{extra}]' for extra in EXTRAS)}, for example "
            f"{METHODS[0]}:{heads[0]}+{EXTRAS[0]}"
        )
    if fields.get("method") not in METHODS:
        raise MalformedRequest(f"explain: unknown method; use one of {', '.join(METHODS)}")
    chosen = fields.get("heads", list(heads))
    if not isinstance(chosen, list) or not chosen or any(name not in heads for name in chosen):
        raise MalformedRequest(
            f"explain: unknown head, or no head; this model has {', '.join(heads)}"
        )
    full_frame, grid = (fields.get(name, False) for name in EXTRAS)
    if not (isinstance(full_frame, bool) and isinstance(grid, bool)):
        raise MalformedRequest(f"explain: {' and '.join(EXTRAS)} must be true or false")
    return Explain(str(fields["method"]), tuple(dict.fromkeys(chosen)), full_frame, grid)


def _explain_fields(text: str) -> dict[str, object]:
    """`METHOD[:HEAD,HEAD][+full_frame][+grid]` as the object that JSON may give."""
    asked, *extras = (part.strip() for part in text.split("+"))
    method, colon, named = asked.partition(":")
    fields: dict[str, object] = {"method": method.strip(), **dict.fromkeys(extras, True)}
    if colon:
        fields["heads"] = [name.strip() for name in named.split(",")]
    return fields
