import io
import re

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from model_def.images.formats import stored_pixels, unusable


def reopened(image: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer)


def grey_of(image: Image.Image) -> list[list[int]]:
    return np.asarray(stored_pixels(image)[0].convert("L")).tolist()


@pytest.mark.parametrize(
    ("mode", "pixel", "grey"),
    [
        ("L", 77, 77),
        ("1", 1, 255),
        ("RGB", (255, 0, 0), 76),  # 255 x 0.299
        ("RGBA", (0, 255, 0, 3), 150),  # 255 x 0.587; alpha ignored
        ("LA", (90, 0), 90),
        ("CMYK", (0, 255, 255, 0), 76),  # no cyan, all magenta and yellow: red
    ],
)
def test_grey_of_each_mode(mode: str, pixel: object, grey: int) -> None:
    assert grey_of(Image.new(mode, (2, 2), pixel)) == [[grey, grey]] * 2  # type: ignore[arg-type]


def test_grey_of_a_palette_is_of_its_colours_not_of_its_indices() -> None:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, 200, 200, 200])
    assert grey_of(image) == [[200]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_high_byte_whatever_the_image_holds(kind: str) -> None:
    values = np.array([[0, 255, 256, 257 * 90, 256 * 90, 65535]], np.uint16)
    image = reopened(Image.fromarray(values), kind)
    assert unusable(image) is None
    assert grey_of(image) == [[0, 0, 1, 90, 90, 255]]
    dim = reopened(Image.fromarray(values // 16), kind)
    assert max(grey_of(dim)[0]) == 15


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        (262, 0, "white as zero"),
        (258, 12, "9 to 15 bits"),
        (339, 2, "pixel mode I|signed"),
        (322, 40_000, "tiles"),
    ],
)
def test_16_bit_tiffs_that_would_be_misread(tag: int, value: int, reason: str) -> None:
    image = reopened(Image.fromarray(np.zeros((4, 4), np.uint16)), "TIFF")
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    image.tag_v2[tag] = (value,) if tag in (258, 339) else value
    image.tag_v2[323] = 40_000
    if tag != 322:
        del image.tag_v2[323]
    assert re.search(reason, unusable(image) or "")
