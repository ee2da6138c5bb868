import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_def.preprocessing import Preprocessing, RoI, crop, normalise, resize, widen


def test_widen_by_a_fraction_of_its_own_size_and_clip_at_the_frame() -> None:
    # 40 x 20 box, 20 %: 8 columns and 4 rows a side; the left and lower margins meet the frame.
    assert widen(RoI(5, 50, 45, 70), 0.2, width=100, height=72) == (0, 46, 53, 72)
    assert widen(RoI(5, 50, 45, 70), 0.0, width=100, height=72) == (5, 50, 45, 70)


def test_crop_is_half_open() -> None:
    frame = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert crop(frame, RoI(1, 1, 3, 4), Preprocessing()).tolist() == [[6, 7], [11, 12], [16, 17]]


def test_resize_takes_nothing_from_outside_the_crop() -> None:
    frame = np.full((90, 90), 255, np.uint8)
    frame[30:60, 30:60] = 7
    facts = Preprocessing(size=64)
    assert (resize(crop(frame, RoI(30, 30, 60, 60), facts), facts) == 7).all()


def test_resize_halves_by_the_antialiased_triangle() -> None:
    # Pillow widens the bilinear triangle to the scale: weights 1, 3, 3, 1 (of 8) around a pixel.
    row = np.zeros((64, 64), np.uint8)
    row[:, 4] = 80
    small = resize(row, Preprocessing(size=32))
    assert small[10, :5].tolist() == [0, 10, 30, 0, 0]


def test_normalise_by_hand() -> None:
    facts = Preprocessing(mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 2.0))
    crops = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-1.0, 1.0]], [[0.0, 1.0]], [[-0.5, 0.0]]]])
    torch.testing.assert_close(normalise(crops, facts), expected)


def test_unknown_facts_are_refused() -> None:
    with pytest.raises(ValidationError):
        Preprocessing(sized=256)  # type: ignore[call-arg]
