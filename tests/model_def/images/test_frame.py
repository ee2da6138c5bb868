import numpy as np
from PIL import Image

from model_def.images.frame import is_coloured
from model_def.preprocessing import RoI

TEXTURE = np.random.default_rng(2).integers(20, 200, (256, 256), dtype=np.uint8)


def test_colour_is_a_spread_of_64_between_the_channels_in_a_hundredth_of_the_roi() -> None:
    grey = np.repeat(TEXTURE[..., None], 3, axis=2)
    tinted = grey.copy()
    tinted[..., 2] -= np.minimum(tinted[..., 2], 40)
    assert not is_coloured(Image.fromarray(tinted), RoI(0, 0, 100, 100))
    grey[:10, :10] = (220, 156, 220)  # 100 of 10,000 pixels: a caliper
    assert not is_coloured(Image.fromarray(grey), RoI(0, 0, 100, 100))
    assert is_coloured(Image.fromarray(grey), RoI(0, 0, 99, 100))
    assert not is_coloured(Image.fromarray(grey), RoI(10, 10, 99, 100))
