"""Pictures side by side as one small PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model_def.overlay import CROP_SIDE
from model_def.preprocessing import Pixels

GAP, LINE = 8, 16


class Panel(NamedTuple):
    """One picture, with lines of text above it."""

    lines: Sequence[str]
    picture: Pixels | bytes
    """A grey crop, or a PNG of `model_def.overlay`."""


def pasted(rows: Sequence[Sequence[Panel | None]]) -> bytes:
    """PNG of the panels on black, row by row; where there is none the ground is left empty.

    In 256 colours, as the maps have: a third of the bytes.
    """
    head = LINE * max(len(it.lines) for row in rows for it in row if it)
    drawn = [[None if it is None else _picture(it.picture) for it in row] for row in rows]
    heights = [head + GAP + max(it.height for it in row if it) for row in drawn]
    width = GAP + max(len(row) for row in rows) * (CROP_SIDE + GAP)
    ground = Image.new("RGB", (width, GAP + sum(heights)))
    pen, font = ImageDraw.Draw(ground), ImageFont.load_default(size=12)
    top = GAP
    for panels, pictures, height in zip(rows, drawn, heights, strict=True):
        for column, (panel, picture) in enumerate(zip(panels, pictures, strict=True)):
            if panel is None or picture is None:
                continue
            left = GAP + column * (CROP_SIDE + GAP)
            for line, text in enumerate(panel.lines):
                pen.text((left, top + line * LINE), text, font=font, fill="white")
            ground.paste(picture, (left + (CROP_SIDE - picture.width) // 2, top + head))
        top += height
    buffer = io.BytesIO()
    small = ground.quantize(256, dither=Image.Dither.NONE)
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _picture(picture: Pixels | bytes) -> Image.Image:
    """As `overlay` sizes a crop: its longer side as wide as a panel."""
    if isinstance(picture, bytes):
        return Image.open(io.BytesIO(picture)).convert("RGB")
    image = Image.fromarray(np.asarray(picture))
    scale = CROP_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR).convert("RGB")
