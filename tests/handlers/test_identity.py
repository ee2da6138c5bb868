"""The DICOM files of the pydicom package have names filled in: none may come out again."""

import logging
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.valuerep import PersonName

from handlers.responses import to_json
from handlers.service import ScoringService

FILES = sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))
assert len(FILES) > 80
TEXT = {"PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "DA", "TM", "DT", "UI", "AS", "IS"}
SHORTEST = 6  # shorter values (a date's year, "US") are words that an answer may have of its own


def texts(file: Path) -> set[str]:
    """Every long text in a file, of nested items as well, and the parts of its names."""
    found = set()
    try:
        for element in pydicom.dcmread(file, force=True).iterall():
            if element.VR in TEXT:
                values = element.value if element.VM > 1 else [element.value]
                found |= {str(value) for value in values}
                if isinstance(element.value, PersonName):
                    found |= set(str(element.value).replace("=", "^").split("^"))
    except Exception:  # the damaged files among them hold what was read before
        pass
    return {text for text in found if len(text) >= SHORTEST}


def test_no_text_of_a_dicom_file_comes_out(
    service: ScoringService,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    scored = 0
    for file in FILES:
        caplog.clear()
        data = file.read_bytes()
        rows = [{"image": data}, {"image": data, "frame": "0", "explain": "gradcam"}]
        with warnings.catch_warnings(record=True) as warned:
            outcomes = service.score(rows)
        scored += outcomes[1].status == 200
        assert {outcome.status for outcome in outcomes} <= {200, 413, 415, 422}, file.name
        said = b"".join(to_json(outcome.body) for outcome in outcomes).decode()
        said += caplog.text + "".join(str(warning.message) for warning in warned)
        assert not [text for text in texts(file) if text in said], file.name
    assert scored > 40
