"""The picture of the Secondary Capture: the frame with its box, the heat maps, the scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from batch.dicom.making.result import HeadResult, Result

RESEARCH = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"
_MARGIN = 8
_BOX = (255, 210, 0)
_TEXT = (235, 235, 235)
_MIN_WIDTH = 480
"""Pixels: a small frame leaves room for the text."""

Pixels = npt.NDArray[np.uint8]


def lines(result: Result) -> list[str]:
    """The scores as text, a line or two a head."""
    found: list[str] = []
    for name, head in result.heads.items():
        found += [f"{name}: {head.label}{_unsure(head)}", _numbers(head)]
    if result.roi_confidence is not None:
        found.append(f"region proposed by software, confidence {result.roi_confidence:.2f}")
    if not result.consistent:
        found.append("heads contradict each other")
    if result.out_of_distribution:
        found.append("unlike the images of the training")
    if result.warnings:
        found.append("warnings: " + ", ".join(result.warnings))
    return found


def draw(frame_HW: Pixels, result: Result) -> Pixels:
    """Draw a frame of grey values (rows, columns) and its result: RGB (rows, columns, 3)."""
    font = ImageFont.load_default(14)
    bold = ImageFont.load_default(16)
    frame = Image.fromarray(frame_HW).convert("RGB")
    pen = ImageDraw.Draw(frame)
    x0, y0, x1, y1 = result.roi
    pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_BOX)
    maps = [
        (name, Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGB"))
        for name, png in result.heat_maps.items()
    ]
    inner = max(_MIN_WIDTH, frame.width, *(it.width for _, it in maps), 0)
    model = result.model
    text = [
        *lines(result),
        f"{model.name} {model.version}",
        f"sha256 {model.sha256[:32]}",
        model.sha256[32:],
    ]
    wrapped = [piece for line in text for piece in _wrapped(line, font, inner)]
    rows = _rows([it for _, it in maps], inner)
    line_height = 18
    height = (
        2 * _MARGIN
        + 24
        + frame.height
        + sum(max(it.height for it in row) + _MARGIN for row in rows)
        + _MARGIN
        + line_height * len(wrapped)
    )
    sheet = Image.new("RGB", (inner + 2 * _MARGIN, height))
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), RESEARCH, font=bold, fill=_BOX)
    y = _MARGIN + 24
    sheet.paste(frame, (_MARGIN, y))
    y += frame.height + _MARGIN
    for row in rows:
        x = _MARGIN
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + _MARGIN
        y += max(it.height for it in row) + _MARGIN
    for line in wrapped:
        pen.text((_MARGIN, y), line, font=font, fill=_TEXT)
        y += line_height
    return np.asarray(sheet)


def _rows(pictures: Sequence[Image.Image], width: int) -> list[list[Image.Image]]:
    """Put pictures side by side as far as they fit."""
    rows: list[list[Image.Image]] = []
    for picture in pictures:
        used = sum(it.width + _MARGIN for it in rows[-1]) if rows else width
        if not rows or used + picture.width > width:
            rows.append([])
        rows[-1].append(picture)
    return rows


def _wrapped(line: str, font: Any, width: int) -> list[str]:
    """Break a line at spaces, and a word that is too long anywhere: nothing is cut off."""
    if font.getlength(line) <= width:
        return [line]
    done, current = [], ""
    for word in line.split(" "):
        longer = f"{current} {word}" if current else word
        if font.getlength(longer) <= width or not current:
            current = longer
        else:
            done.append(current)
            current = word
        while font.getlength(current) > width:
            fits = next(
                n for n in range(len(current), 0, -1) if font.getlength(current[:n]) <= width
            )
            done.append(current[:fits])
            current = current[fits:]
    return [*done, current]


def _unsure(head: HeadResult) -> str:
    if not head.uncertain:
        return ""
    return f"  (uncertain: {' or '.join(head.label_set or ()) or 'no label fits'})"


def _numbers(head: HeadResult) -> str:
    parts = [f"P({label}) = {value:.3f}" for label, value in head.probabilities.items()]
    if head.threshold is not None:
        parts.append(f"threshold {head.threshold:.3f}")
    if head.given is not None:
        parts.append(f"given {head.given}")
    return ", ".join(parts)
