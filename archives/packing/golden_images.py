"""The images of the golden examples: synthetic speckle with a dark lesion, always the same."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 320, 240


class GoldenImage(NamedTuple):
    """An encoded frame and the RoI to score in it."""

    name: str
    png: bytes
    roi: tuple[int, int, int, int]


def golden_images() -> list[GoldenImage]:
    """Four frames that differ in the lesion's size, aspect and depth, and in their speckle."""
    return [
        _draw(seed, *shape)
        for seed, shape in enumerate(
            [(160, 110, 60, 30), (150, 120, 35, 48), (90, 90, 25, 22), (220, 130, 70, 60)]
        )
    ]


def _draw(seed: int, x: int, y: int, half_width: int, half_height: int) -> GoldenImage:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    distance = np.hypot((columns - x) / half_width, (rows - y) / half_height)
    level = np.where(distance < 1, 22, 70) + np.where(abs(distance - 1) < 0.15, 12 * seed, 0)
    speckle = np.random.default_rng(seed).rayleigh(size=(HEIGHT, WIDTH))
    pixels = np.clip(level * speckle, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    box = (x - half_width - 4, y - half_height - 4, x + half_width + 4, y + half_height + 4)
    return GoldenImage(f"golden_{seed}.png", buffer.getvalue(), box)
