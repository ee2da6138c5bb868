"""What the texts of a table mean: words for "missing", ids and labels in one spelling."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sonode.id_spelling import without_spelling
from train.tables.values import FormatError, number

# What R, pandas, Excel, SAS and people write for a value that is missing; BrEaST's two words, too.
_MISSING = frozenset(
    ("na", "n/a", "n.a.", "<na>", "#n/a", "#na", "nan", "-nan", "null", "-", "--", ".", "?")
) | {"not available", "not applicable"}
AGE = ("age", "ageyears", "patientage")
"""Columns of a patient's age, as `bare_name` spells them."""
_EXCEL_NUMBER = re.compile(r"\d([.,]\d+)?E\+\d+", re.ASCII | re.IGNORECASE)
_EXCEL_ERROR = re.compile(r"#(REF|VALUE|NAME|DIV/0|NUM|NULL|SPILL|CALC)[!?]")
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)


def missing_words(values: Sequence[str]) -> set[str]:
    """The texts of a column that are words for "missing".

    `None` is one as Python writes it; `none` is an answer. A dash is none where a plus stands in
    the column, too: of a receptor it is the negative.
    """
    found = {text for text in set(values) if text == "None" or text.lower() in _MISSING}
    if any("+" in text for text in values):
        found -= {"-", "--"}
    return found


def without_decimal_commas(values: Sequence[str]) -> list[str] | None:
    """The numbers of a column with points for decimal commas; None where they are no such numbers.

    Raises FormatError: the commas may as well be those of thousands.
    """
    commas = [text for text in values if "," in text]
    if not commas or not all(_COMMA.fullmatch(text) for text in commas):
        return None
    if not all(_whole(text) for text in values if text and "," not in text):
        return None
    if all(_THOUSANDS.fullmatch(text) for text in commas):
        raise FormatError(f"`{commas[0]}` has a comma for decimals or thousands; write 1234.5")
    return [text.replace(",", ".") for text in values]


def bare_name(column: str) -> str:
    """A column's name without signs and capitals: `Patient Age` and `patient_age` are one."""
    return re.sub(r"[^a-z0-9]", "", column.lower())


def spelt_id(text: str) -> str:
    """An id in the one spelling (Unicode's NFC) that equal ids have.

    Raises FormatError: it holds what nobody sees, or is what Excel made of one.
    """
    if _EXCEL_NUMBER.fullmatch(text):
        raise FormatError("a number that Excel has shortened; export the ids as text")
    return _spelt(text)


def spelt_label(text: str) -> str | None:
    """A label in the one spelling that equal labels have: NFC, one blank for any run of spaces.

    None where blank.

    Raises FormatError: it holds what nobody sees, or is an error of Excel's.
    """
    return _spelt(" ".join(text.split())) or None


def _spelt(text: str) -> str:
    if _EXCEL_ERROR.fullmatch(text):
        raise FormatError(f"Excel's error {text}; correct it")
    text = unicodedata.normalize("NFC", text)
    for character in text:
        if character != " " and unicodedata.category(character)[0] in "CZ":
            raise FormatError(f"has the invisible character U+{ord(character):04X}; remove it")
    return text


def _whole(text: str) -> bool:
    try:
        value = number(text)
    except FormatError:
        return False
    return value is not None and "." not in text


def rounded_by_excel(values: Iterable[str]) -> bool:
    """Whether all ids of more than 15 digits end in zeros there, as Excel stores such numbers."""
    long = {text for text in values if text.isascii() and text.isdigit() and len(text) > 15}
    return bool(long) and not any(text[15:].strip("0") for text in long)


def alike(values: Iterable[str | None]) -> list[list[int]]:
    """Where texts first stand that differ by their spelling alone; see `without_spelling`."""
    first: dict[str, dict[str, int]] = defaultdict(dict)
    for place, text in enumerate(values):
        if text:
            first[without_spelling(text)].setdefault(text, place)
    return [list(places.values()) for places in first.values() if len(places) > 1]
