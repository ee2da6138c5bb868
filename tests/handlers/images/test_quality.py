import numpy as np
import pytest

from handlers.images import quality
from model_def.preprocessing import RoI

TEXTURE = np.random.default_rng(2).integers(20, 200, (256, 256), dtype=np.uint8)
BOX = RoI(0, 0, 32, 40)


def test_a_roi_that_is_enlarged_more_than_eight_times_is_small() -> None:
    assert quality.grey_warnings(BOX, TEXTURE) == []
    for box in (RoI(0, 0, 31, 40), RoI(9, 9, 90, 40)):
        assert quality.grey_warnings(box, TEXTURE) == ["small_roi"]


@pytest.mark.parametrize(("spread", "flat"), [(0, True), (11, True), (12, False)])
def test_flat_is_a_spread_below_twelve_levels_of_the_middle_nine_tenths(
    spread: int, flat: bool
) -> None:
    pixels = np.full((256, 256), 90, np.uint8)
    pixels[:128] += spread
    pixels[0, :9] = 240  # a few bright pixels are no texture
    assert ("flat_image" in quality.grey_warnings(BOX, pixels)) == flat


def test_black_and_white_are_flat_and_white_is_saturated() -> None:
    black, white = (np.full((256, 256), level, np.uint8) for level in (0, 255))
    assert quality.grey_warnings(BOX, black) == ["flat_image"]
    assert quality.grey_warnings(BOX, white) == ["flat_image", "saturated_image"]


def test_saturated_is_more_than_a_quarter_at_full_scale() -> None:
    pixels = TEXTURE.copy()
    pixels[:64] = 250
    assert quality.grey_warnings(BOX, pixels) == []
    pixels[64, 0] = 250
    assert quality.grey_warnings(BOX, pixels) == ["saturated_image"]
