import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_def.preprocessing import Preprocessing, resize
from train.data.augment import Augmentation, augmentation

# Nothing but the flip is left to chance.
STILL = {"smallest_crop": 1.0, "distortion": 0.0}


def drawn(settings: Augmentation, image_1HW: torch.Tensor, seeds: int) -> torch.Tensor:
    transform = augmentation(settings, 32)
    pictures = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        pictures.append(transform(image_1HW)[0])
    return torch.stack(pictures)


@pytest.fixture
def ramp() -> torch.Tensor:
    """Dark at the left, bright at the right, never black."""
    row = np.linspace(60, 200, 32).astype(np.uint8)
    return torch.from_numpy(np.tile(row, (32, 1)))[None]


def test_with_everything_off_only_the_flip_is_left(ramp: torch.Tensor) -> None:
    pictures = drawn(Augmentation(**STILL), ramp, 20)
    flipped = [torch.equal(it, ramp[0].flip(1)) for it in pictures]
    assert all(
        torch.equal(it, ramp[0]) or mirror for it, mirror in zip(pictures, flipped, strict=True)
    )
    assert 4 <= sum(flipped) <= 16


@pytest.mark.parametrize("shape", [(300, 500), (40, 20), (96, 96)])
def test_with_everything_off_training_sees_what_serving_sees(shape: tuple[int, int]) -> None:
    crop_HW = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    served = resize(crop_HW, Preprocessing(size=32)).astype(int)
    for picture in drawn(Augmentation(**STILL), torch.from_numpy(crop_HW)[None], 5).numpy():
        apart = [np.abs(served - it).max() for it in (picture, picture[:, ::-1])]
        assert min(apart) <= 1  # torchvision and Pillow round otherwise


@pytest.mark.parametrize("shape", [(40, 160), (160, 40), (64, 64)], ids=["wide", "tall", "square"])
def test_each_crop_keeps_the_promised_share_and_all_of_the_box_is_seen(
    shape: tuple[int, int],
) -> None:
    """The greys are the place, so that a view's first and last ones tell what it holds."""
    share_seen, first_seen, last_seen = np.ones(200), np.ones(2), np.zeros(2)
    for axis in (0, 1):
        place = torch.linspace(0, 255, shape[axis]).round().to(torch.uint8)
        box = place[:, None].expand(shape) if axis == 0 else place[None].expand(shape)
        views = drawn(Augmentation(distortion=0.0), box[None].contiguous(), 200).float() / 255
        low, high = views.amin(dim=(1, 2)).numpy(), views.amax(dim=(1, 2)).numpy()
        share_seen *= high - low
        first_seen[axis], last_seen[axis] = low.min(), high.max()
    edge = 1.5 / 32  # a pixel at either edge is averaged with its neighbours
    assert share_seen.min() >= 0.6 - 2 * edge
    assert share_seen.max() <= 1
    assert (first_seen <= edge).all()
    assert (last_seen >= 1 - edge).all()
    # The whole width and height is no rare sight.
    assert (share_seen >= 0.9 - edge).mean() > 0.02


def test_a_crop_is_never_turned_upside_down(ramp: torch.Tensor) -> None:
    upright = ramp.transpose(1, 2).contiguous()  # dark above, bright below
    pictures = drawn(Augmentation(), upright, 20).float()
    assert (pictures[:, :8].mean(dim=(1, 2)) < pictures[:, -8:].mean(dim=(1, 2))).all()


def test_training_may_see_another_size_than_serving(ramp: torch.Tensor) -> None:
    assert drawn(Augmentation(size=48), ramp, 1).shape == (1, 48, 48)
    assert drawn(Augmentation(), ramp, 1).shape == (1, 32, 32)


@pytest.mark.parametrize(
    "settings", [{"rotation_degrees": 15.0}, {"erase": 1.0}], ids=["turned", "erased"]
)
def test_turning_and_erasing_leave_black_where_nothing_was(
    ramp: torch.Tensor, settings: dict[str, float]
) -> None:
    assert (drawn(Augmentation(**STILL), ramp, 20) > 0).all()
    black = (drawn(Augmentation(**STILL, **settings), ramp, 20) == 0).float().mean(dim=(1, 2))
    assert (black > 0).any()
    assert (black < 0.2).all()


def test_blur_takes_the_edge_off() -> None:
    edge = torch.zeros(1, 32, 32, dtype=torch.uint8)
    edge[..., 16:] = 200
    assert set(drawn(Augmentation(**STILL), edge, 10).unique().tolist()) == {0, 200}
    assert len(drawn(Augmentation(**STILL, blur=1.0), edge, 10).unique()) > 2


def test_an_unknown_or_impossible_setting_is_refused() -> None:
    for wrong in ({"vertical_flip": 0.5}, {"smallest_crop": 0.0}, {"erase": 1.5}, {"size": 8}):
        with pytest.raises(ValidationError):
            Augmentation(**wrong)
