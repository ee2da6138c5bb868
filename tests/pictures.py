"""Small pictures and masks for the tests of the importers; each seed another picture."""

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 60, 50


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path: Path, *box: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    x_min, y_min, x_max, y_max = box
    pixels[y_min:y_max, x_min:x_max] = 255
    Image.fromarray(pixels).save(path)
