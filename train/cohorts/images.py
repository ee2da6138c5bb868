"""The images of a cohort, read by the function that reads them in serving."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import pandas as pd

from model_def.images.decode import decode
from model_def.images.errors import RowError
from model_def.images.frame import Frame
from model_def.limits import MAX_DICOM_BYTES
from model_def.preprocessing import Pixels
from sonode.console import progress
from sonode.pixel_digest import pixels_sha256
from train.cohorts.checks import ABSENT, Scan
from train.cohorts.similar.near_duplicates import thumbnail

FRAME = "#frame="
"""In a reference to an image, between the path of a DICOM file and the number of a frame."""
_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)


class ImageError(OSError):
    """An image that is not taken; the message says why."""


def read_image(path: Path) -> Pixels:
    """Grey pixels (H, W) of a stored image, by the function that reads it in serving.

    Of a DICOM file with several frames, `PATH#frame=N` is frame N, from 0.

    Raises ImageError: it is absent, beyond a limit, damaged, or no image that is taken.
    """
    return _read_frame(path).grey_HW


def _read_frame(path: Path) -> Frame:
    name, mark, number = path.name.partition(FRAME)
    if mark and not _NUMBER.fullmatch(number):
        raise ImageError(f"without a number behind {FRAME}")
    try:
        return decode(_image_bytes(path.with_name(name)), int(number) if mark else None)
    except RowError as error:
        raise ImageError(str(error).removeprefix("image: ")) from None


def _image_bytes(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_DICOM_BYTES:
            raise ImageError(f"{size} bytes; the limit is {MAX_DICOM_BYTES}")
        if size == 0:
            raise ImageError("an empty file; copy it again")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(ABSENT) from error
    except IsADirectoryError as error:
        raise ImageError("a folder; give a file") from error
    except PermissionError as error:
        raise ImageError("not readable; change its permissions") from error


def scan_images(folder: Path, frame: pd.DataFrame) -> dict[str, Scan | str]:
    """Pixel hash and frame size of each image, or the reason why it is not taken."""
    images = list(frame["image"].unique())

    def scan(image: str) -> Scan | str:
        try:
            found = _read_frame(folder / image)
        except ImageError as error:
            return str(error)
        pixels, turned = found.grey_HW, "exif_orientation_ignored" in found.warnings
        height, width = pixels.shape
        digest, brightest = pixels_sha256(pixels), int(pixels.max())
        return Scan(digest, width, height, thumbnail(pixels), turned, brightest)

    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        scans = progress(pool.map(scan, images), total=len(images), what="checking images")
        return dict(zip(images, scans, strict=True))
