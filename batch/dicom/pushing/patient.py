"""Whether an object's patient is the one whom the PACS has its study of, now.

A patient who was mixed up with another is corrected in the PACS; an object that was made before
would go to the other one's results.
"""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

KEYWORDS = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientName")
_NO_LETTER = re.compile(r"[^A-Za-z0-9]")


def is_same(one: Dataset, other: Dataset) -> bool:
    """Whether two are one patient by all that they tell.

    The ids must be equal, also where one has none. Issuer, birth date and name must be equal where
    both have one: a PACS need not tell them. Of names the ASCII letters of the first of three
    groups count (PS3.5, 6.2.1.2), whatever their case: a PACS may write the others in another
    character set, or add what an empty component has (`DOE^JANE^^^`).
    """
    if _text(one, "PatientID") != _text(other, "PatientID"):
        return False
    told = [(_known(it, one), _known(it, other)) for it in KEYWORDS[1:]]
    return all(mine == its for mine, its in told if mine and its)


def _known(keyword: str, of: Dataset) -> str:
    text = _text(of, keyword)
    if keyword == "PatientName":
        return _NO_LETTER.sub("", text.partition("=")[0]).lower()
    return text.replace(".", "") if keyword == "PatientBirthDate" else text  # as before 1993


def _text(of: Dataset, keyword: str) -> str:
    return str(of.get(keyword) or "").strip()
