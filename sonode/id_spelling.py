"""Ids that differ by their spelling alone are probably one person's or one lesion's."""

from __future__ import annotations

import re
import unicodedata

_NO_FRACTION = re.compile(r"(\d+)\.0*", re.ASCII)
_ZEROS = re.compile(r"(?<!\d)(?<!\d\.)0+(?=\d)", re.ASCII)


def without_spelling(text: str) -> str:
    """What is left of an id without case, blanks, leading zeros, a .0 and Unicode's forms (NFKC).

    A .0 is what pandas writes behind whole numbers where one of them was missing.
    """
    key = _ZEROS.sub("", "".join(unicodedata.normalize("NFKC", text).casefold().split()))
    whole = _NO_FRACTION.fullmatch(key)
    return whole[1] if whole else key
