"""DICOM objects as others show them: DCMTK's pictures, texts and readings (Debian's dcmtk)."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

BOX = (255, 210, 0)


def report(path: Path) -> str:
    """The text of an SR."""
    page = path.with_suffix(".html")
    _run("dsr2html", str(path), str(page))
    return html.unescape(re.sub(r"<[^>]*>", " ", page.read_text()))


def picture(path: Path, frame: int = 0) -> Image.Image:
    """A frame of an image, as it is displayed."""
    png = path.with_suffix(f".{frame}.png")
    _run("dcmj2pnm", "--write-png", "--frame", str(frame + 1), str(path), str(png))
    return Image.open(png)


def state(path: Path, image: Path) -> tuple[Image.Image, list[tuple[float, float]], str]:
    """What a grayscale state shows: the image by its window, its line, and all that is said."""
    assert "Test passed" in _run("dcmpschk", str(path))
    pgm = path.with_suffix(".pgm")
    said = _run("dcmp2pgm", "--verbose", "--pstate", str(path), str(image), str(pgm))
    (listed,) = re.findall(r"coordinates: (.*)", said)
    points = [tuple(map(float, it.split("\\"))) for it in listed.strip(" ,").split(", ")]
    return Image.open(pgm), points, said  # type: ignore[return-value]


def drawn(shown: Image.Image, line: list[tuple[float, float]]) -> Image.Image:
    """The line over the picture."""
    made = shown.convert("RGB")
    ImageDraw.Draw(made).line([(x, y) for x, y in line], fill=BOX)
    return made


def pixels(shown: Image.Image) -> np.ndarray:
    """RGB (rows, columns, 3)."""
    return np.asarray(shown.convert("RGB"))


def _run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: apt-get install dcmtk")
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
