"""The same frames for every server: real where they are at hand, else speckle; PNG, JPEG, DICOM."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.handlers.dicoms import dataset, write

BUSI = Path(__file__).resolve().parents[3] / "shared" / "busi"
COUNT = 48


def frames(folder: Path = BUSI) -> tuple[str, list[Image.Image]]:
    """What the frames are, and the frames: RGB, about 0.4 Mpx; `folder` in the layout of BUSI."""
    real = sorted(path for path in folder.glob("*/*.png") if "mask" not in path.name)
    if len(real) >= COUNT:
        # The largest: this copy is grey, and the published files are larger than its RGB twins.
        chosen = sorted(real, key=lambda path: path.stat().st_size)[-COUNT:]
        return "BUSI", [Image.open(path).convert("RGB") for path in chosen]
    return "speckle", [_speckle(seed) for seed in range(COUNT)]


def _speckle(seed: int) -> Image.Image:
    chance = np.random.default_rng(seed)
    height, width = 560, 720
    envelope = chance.rayleigh(size=(height, width)) * np.linspace(60, 20, height)[:, None]
    grey = np.clip(envelope, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def encoded(images: list[Image.Image], kind: str) -> list[bytes]:
    """Each frame as a file."""
    return [_encode(image, kind) for image in images]


def _encode(image: Image.Image, kind: str) -> bytes:
    if kind == "DICOM":  # as scanners store a still: RGB, not compressed
        return write(dataset(np.asarray(image), "RGB"))
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {"quality": 90}))
    return buffer.getvalue()
