import io

import numpy as np
import pytest
from PIL import Image

from model_def.overlay import CROP_SIDE, FRAME_SIDE, LINE_HEIGHT, Canvas, _enlarged, overlay
from model_def.preprocessing import RoI

GREY = 200
STRIP_HEIGHT = 3 * LINE_HEIGHT  # the scale and two lines of text
CYAN = (0, 255, 255)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def picture(png: bytes) -> np.ndarray:
    """The part above the scale."""
    return pixels(png)[:-STRIP_HEIGHT]


def colourful(rgb_HW3: np.ndarray) -> np.ndarray:
    return np.ptp(rgb_HW3, axis=-1) > 0


def test_a_crop_keeps_its_aspect_and_is_coloured_where_the_map_is() -> None:
    cam = np.zeros((4, 4), np.float32)
    cam[:, 3] = 1
    rgb = picture(overlay(np.full((50, 100), GREY, np.uint8), cam))
    assert rgb.shape == (CROP_SIDE // 2, CROP_SIDE, 3)
    assert not colourful(rgb[:, : CROP_SIDE // 2]).any()
    assert abs(rgb[:, : CROP_SIDE // 2] - GREY).max() <= 4  # greys come in 63 steps
    red, _, blue = rgb[CROP_SIDE // 4, -5]
    assert red > 1.5 * blue


def test_the_bands_lie_where_the_scale_says() -> None:
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1))
    png = Canvas.of_crop(np.full((256, 256), GREY, np.uint8)).draw(ramp, "ramp")
    row = picture(png)[100]
    changes = np.flatnonzero(np.abs(np.diff(row, axis=0)).sum(axis=1)) + 1
    assert changes == pytest.approx(np.arange(1, 10) / 10 * CROP_SIDE, abs=2)
    bar = pixels(png)[-STRIP_HEIGHT + 8]
    shown = [tuple(colour) for colour in bar if sum(colour) > 30]
    # The bar has the ten colours of the picture, in the same order.
    order = list(dict.fromkeys(tuple(colour) for colour in row))
    assert len(order) == 10
    assert [colour for colour in dict.fromkeys(shown) if colour in order] == order


def test_light_and_dark_stay_apart_under_the_colour_and_black_is_coloured_too() -> None:
    crop = np.full((256, 256), GREY, np.uint8)
    crop[128:192] = 60
    crop[192:] = 0
    rgb = picture(overlay(crop, np.ones((8, 8), np.float32)))
    light, dark, black = (rgb[int(y * CROP_SIDE), 100] for y in (0.2, 0.6, 0.9))
    assert light[0] > dark[0] + 30 > black[0] + 40
    assert black[0] > 30 > black[1:].max()


def test_a_signed_map_is_red_where_it_raises_and_blue_where_it_lowers() -> None:
    signed = np.array([[-2.0, 0.0, 2.0]] * 3, np.float32)
    canvas = Canvas.of_crop(np.full((60, 60), GREY, np.uint8))
    rgb = picture(canvas.draw(signed, "signed", signed=True))
    left, middle, right = rgb[100, 5], rgb[100, CROP_SIDE // 2], rgb[100, -5]
    assert left[2] > 1.5 * left[0]
    assert not colourful(middle[None]).any()
    assert right[0] > 1.5 * right[2]
    black = picture(Canvas.of_crop(np.zeros((60, 60), np.uint8)).draw(signed, "", signed=True))
    assert black[100, 5, 2] > 120 < black[100, -5, 0]


def test_a_map_of_nothing_leaves_the_picture_grey() -> None:
    for signed in (False, True):
        canvas = Canvas.of_crop(np.full((90, 90), 33, np.uint8))
        rgb = picture(canvas.draw(np.zeros((8, 8), np.float32), "nothing", signed=signed))
        assert not colourful(rgb).any()
        assert abs(rgb - 33).max() <= 4


def test_the_frame_shows_the_map_in_its_box_and_outlines_the_lesion() -> None:
    frame = np.full((384, 768), GREY, np.uint8)  # drawn at half its size
    canvas = Canvas.of_frame(frame, RoI(200, 100, 400, 300), RoI(240, 140, 360, 260))
    rgb = picture(canvas.draw(np.ones((8, 8), np.float32), "frame"))
    assert rgb.shape == (FRAME_SIDE // 2, FRAME_SIDE, 3)
    coloured = colourful(rgb)
    assert coloured[50:150, 100:200].all()
    coloured[50:150, 100:200] = False
    assert not coloured.any()
    outline = (rgb == CYAN).all(axis=-1)
    ys, xs = np.nonzero(outline)
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (120, 70, 179, 129)
    assert outline.sum() == 60 * 60 - 56 * 56


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (3000, 2)])
def test_any_shape_is_drawn(shape: tuple[int, int]) -> None:
    grey = np.full(shape, GREY, np.uint8)
    height, width = shape
    whole = RoI(0, 0, width, height)
    for canvas in (Canvas.of_crop(grey), Canvas.of_frame(grey, whole, whole)):
        rgb = pixels(canvas.draw(np.ones((8, 8), np.float32), "a long caption " * 20))
        assert rgb.shape[0] > STRIP_HEIGHT
        assert rgb.shape[1] >= CROP_SIDE


@pytest.mark.parametrize("size", [(288, 288), (40, 300), (300, 40)])
def test_a_map_is_enlarged_as_pillow_does_it(size: tuple[int, int]) -> None:
    """Each cell in its place; Pillow rounds between its two passes, so a step of 255 may differ."""
    cells_hw = np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)
    theirs = Image.fromarray(cells_hw).resize(size, Image.Resampling.BICUBIC)
    ours = _enlarged(cells_hw, *size)
    assert abs(ours.astype(int) - np.asarray(theirs, int)).max() <= 1


def test_the_end_of_the_scale_is_written_on_it() -> None:
    canvas = Canvas.of_crop(np.full((90, 90), GREY, np.uint8))
    same = [pixels(canvas.draw(np.full((8, 8), top, np.float32), "x")) for top in (1, 1, 2)]
    assert (same[0] == same[1]).all()
    differs = np.nonzero((same[0] != same[2]).any(axis=-1))
    assert differs[0].min() >= same[0].shape[0] - STRIP_HEIGHT  # the number alone
    assert differs[1].min() > CROP_SIDE * 0.8


def test_a_caption_of_two_lines_is_read_to_its_end() -> None:
    crop, cam = np.full((60, 60), 90, np.uint8), np.ones((2, 2), np.float32)
    method, target = "integrated gradients", "logit of subtype = HER2-enriched given malignancy"

    def strip(caption: str) -> np.ndarray:
        return pixels(Canvas.of_crop(crop).draw(cam, caption))[CROP_SIDE:].sum(axis=-1)

    one, two = strip(method), strip(f"{method}\n{target}")
    assert (len(one), len(two)) == (STRIP_HEIGHT, STRIP_HEIGHT + 16)
    assert (two[:32] == one[:32]).all()
    assert (two[48:] == one[32:]).all()
    right = np.flatnonzero((two[32:48] != two[32, -1]).any(axis=0)).max()
    assert 200 < right < two.shape[1] - 4  # nothing is cut
