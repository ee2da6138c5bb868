"""The same frames for all that is measured: real ones where they are at hand, else phantoms."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.handlers.dicoms import dataset, write
from train.importers.phantom import write_phantom

BUSI = Path(__file__).resolve().parents[3] / "shared" / "busi"
COUNT = 48


def frames(folder: Path = BUSI) -> tuple[str, list[Image.Image]]:
    """What the frames are, and the frames: RGB, about 0.4 Mpx; `folder` in the layout of BUSI."""
    real = sorted(path for path in folder.glob("*/*.png") if "mask" not in path.name)
    if len(real) >= COUNT:
        # The largest: this copy is grey, and the published files are larger than its RGB twins.
        chosen = sorted(real, key=lambda path: path.stat().st_size)[-COUNT:]
        return "BUSI", [Image.open(path).convert("RGB") for path in chosen]
    return "phantom", _phantoms()


def _phantoms() -> list[Image.Image]:
    """Enlarged to BUSI's largest frames they cost a PNG decoder what those cost, within 10 %."""
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        write_phantom(Path(name), COUNT // 2, 0)  # of two views or more each
        chosen = sorted((Path(name) / "images").iterdir())[:COUNT]
        grey = [Image.open(path).resize((756, 576), Image.Resampling.BICUBIC) for path in chosen]
    return [image.convert("RGB") for image in grey]


def encoded(images: list[Image.Image], kind: str) -> list[bytes]:
    """Each frame as a file."""
    return [_encode(image, kind) for image in images]


def _encode(image: Image.Image, kind: str) -> bytes:
    if kind == "DICOM":  # as scanners store a still: RGB, not compressed
        return write(dataset(np.asarray(image), "RGB"))
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {"quality": 90}))
    return buffer.getvalue()
