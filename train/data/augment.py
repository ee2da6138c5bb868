"""What training does to a crop so that a small cohort is never seen twice the same way."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torchvision.transforms import InterpolationMode, v2

Share = Annotated[float, Field(ge=0, le=1)]

BLUR_SIGMA = (0.1, 1.5)  # pixels at network size; ours: from nothing to a poorer transducer's focus
ERASED = (0.02, 0.15)  # share of the area; ours: a calliper's or a shadow's size


class Augmentation(BaseModel):
    """Kinds and strengths; the paper names its kinds, the defaults' strengths are ours.

    The paper: random crop and scale around the RoI, flip, colour distortion (of grey: brightness
    and contrast). Flips are left-right only: depth has a direction in ultrasound. The other kinds
    are off by default; they are for small cohorts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.6
    """A random crop keeps at least this share of the area."""
    distortion: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Brightness and contrast change by up to this factor, up or down."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Half of the crops are turned, by up to this angle either way; corners turn black."""
    blur: Share = 0.0
    """Share of crops that are blurred (Gaussian)."""
    erase: Share = 0.0
    """Share of crops in which a random rectangle turns black (Zhong et al. 2020,
    https://arxiv.org/abs/1708.04896)."""
    size: Annotated[int, Field(ge=32, le=1024)] | None = None
    """Side in pixels that training sees, if not the network's input: random crops show a lesion
    larger than serving does, which a smaller side makes up for, at less cost (FixRes, Touvron et
    al. 2019, https://arxiv.org/abs/1906.06423)."""


def augmentation(settings: Augmentation, size: int) -> v2.Transform:
    """The transform of a crop, uint8 (1, H, W) of any size -> uint8 (1, S, S).

    S is `settings.size`, or `size` where that is None. The whole crop is squared first, as serving
    does. Random crops of 3:4 to 4:3 of the crop itself never hold the whole width of a wider one
    (70 % of the boxes of BUSI and BUS-BRA are wider), and keep less than `smallest_crop` of it.
    Parts of the box itself, which are sharper, gained nothing (docs/real-images.md).
    """
    side = settings.size or size
    square = v2.Resize((size, size), antialias=True)
    crop = v2.RandomResizedCrop(side, scale=(settings.smallest_crop, 1.0), antialias=True)
    steps: list[v2.Transform] = [square, crop, v2.RandomHorizontalFlip()]
    if settings.rotation_degrees:
        turn = v2.RandomRotation(settings.rotation_degrees, InterpolationMode.BILINEAR)
        steps.append(v2.RandomApply([turn]))
    steps.append(v2.ColorJitter(brightness=settings.distortion, contrast=settings.distortion))
    if settings.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, BLUR_SIGMA)], settings.blur))
    if settings.erase:
        steps.append(v2.RandomErasing(settings.erase, ERASED))
    return v2.Compose(steps)
