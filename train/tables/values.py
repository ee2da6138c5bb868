"""One value of a source's table from its text: blank is missing, nonsense is a `FormatError`."""

from __future__ import annotations

import math
import re
from pathlib import PurePath

from model_def.preprocessing import RoI

MAX_WHOLE = 2**31 - 1  # int32, as a cohort stores it
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_BBOX = re.compile(r"\[([^\[\],]*),([^\[\],]*),([^\[\],]*),([^\[\],]*)\]")
# pandas writes a column of 0 and 1 with blanks as 0.0 and 1.0.
_TRUTH = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


class FormatError(ValueError):
    """A text that is no value of its kind; says what to give in its place."""


def truth(text: str) -> bool | None:
    """1, 0, true or false in any case; None where blank. Raises FormatError: anything else."""
    text = text.strip().lower()
    if text and text not in _TRUTH:
        raise FormatError("give 1, 0, true, false or blank")
    return _TRUTH.get(text)


def malignancy(text: str) -> bool | None:
    """`benign` or `malignant` in any case; None where blank. Raises FormatError: anything else."""
    text = text.strip().lower()
    if text not in ("benign", "malignant", ""):
        raise FormatError("give benign, malignant or blank")
    return text == "malignant" if text else None


def number(text: str) -> float | None:
    """A finite decimal number, None where blank.

    Raises FormatError: anything else; `nan`, `inf` and `1_000` too.
    """
    text = text.strip()
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
        raise FormatError("give a number or blank")
    return value


def age_string(text: str) -> float | None:
    """Years of DICOM's age string, such as 045Y or 018M (PS3.5, 6.2); None of any other text."""
    match = _AGE.fullmatch(text.strip())
    return int(match[1]) * _YEARS[match[2]] if match else None


def years(text: str) -> float | None:
    """An age in years, as a number or as DICOM's age string; None where blank.

    Raises FormatError: anything else.
    """
    if (age := age_string(text)) is not None:
        return age
    try:
        return number(text)
    except FormatError:
        raise FormatError(
            "give years as 63 or 063Y, or blank; --column NAME=label keeps text such as age bands"
        ) from None


def whole(text: str) -> int | None:
    """A whole number within int32, also written as 3.0; None where blank.

    Raises FormatError: anything else.
    """
    try:
        value = number(text)
    except FormatError:
        value = math.nan
    if value is None:
        return None
    if not value.is_integer() or abs(value) > MAX_WHOLE:
        raise FormatError("give an integer or blank")
    return int(value)


def file_path(text: str) -> str:
    """A path, which must be one that names a file.

    Raises FormatError: it holds a zero byte, or ends in no name.
    """
    path = PurePath(text)
    too_long = any(len(part.encode()) > 255 for part in path.parts) or len(text.encode()) > 4000
    if text and ("\0" in text or not path.name or too_long):
        raise FormatError("not a file; give its path relative to the table's folder")
    return text


def code(text: str) -> str | None:
    """A whole number as the text of a label, 1.0 as `1`; None where blank.

    Raises FormatError: anything else.
    """
    value = whole(text)
    return None if value is None else str(value)


def identifier(text: str) -> str:
    """An id that a table holds as a floating number, as the whole number that it is; "" if blank.

    Raises FormatError: not an integer, or beyond 2**53, where ids are no longer distinct.
    """
    if not text:
        return ""
    value = float(text)
    if not value.is_integer() or abs(value) > 2**53:
        raise FormatError("not an integer, or too many digits; give ids as text")
    return str(int(value))


def bbox(text: str) -> RoI | None:
    """BUS-BRA's `[x, y, w, h]` -> half-open; None where blank.

    `x` and `y` are numbers of pixels from 1, and `w` and `h` are what lies between the first and
    the last pixel, so that the box ends with pixel x + w. The set does not say so: the masks do
    (1309 of 1309 have this very box).

    Raises FormatError: anything else.
    """
    text = text.strip()
    if not text:
        return None
    match = _BBOX.fullmatch(text)
    values = [whole(part) for part in match.groups()] if match else []
    x, y, width, height = values or [None] * 4
    if x is None or y is None or width is None or height is None:
        raise FormatError("give [x,y,w,h] in integer pixels")
    if max(abs(x) + abs(width), abs(y) + abs(height)) > MAX_WHOLE:
        raise FormatError("give [x,y,w,h] in integer pixels")
    return RoI(x - 1, y - 1, x + width, y + height)
