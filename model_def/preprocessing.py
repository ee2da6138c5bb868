"""From a stored frame and a RoI to the network's input: one code path for training and serving.

Shapes in names: H, W of the stored frame; S the network's input side; B the batch.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

Pixels = npt.NDArray[np.uint8]

# Mean and standard deviation of ImageNet, as torchvision's published weights expect them:
# https://docs.pytorch.org/vision/stable/models.html
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Positive = Annotated[float, Field(gt=0)]


class RoI(NamedTuple):
    """A lesion box in pixels of the full stored frame, half-open, origin at the top left."""

    x_min: int
    y_min: int
    x_max: int
    y_max: int

    def lies_inside(self, width: int, height: int) -> bool:
        """Whether it holds a pixel and lies inside a frame of that size."""
        return 0 <= self.x_min < self.x_max <= width and 0 <= self.y_min < self.y_max <= height

    def overlaps(self, other: RoI) -> bool:
        """Whether both share a pixel."""
        return max(self.x_min, other.x_min) < min(self.x_max, other.x_max) and max(
            self.y_min, other.y_min
        ) < min(self.y_max, other.y_max)


class Preprocessing(BaseModel):
    """The preprocessing facts that travel with the weights in the model card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Annotated[int, Field(ge=32, le=1024)] = 256
    """Side of the square network input, in pixels; the crop's aspect is not kept."""
    context: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Widening of the RoI on each side, as a fraction of its own width and height."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per-channel mean subtracted from intensities in [0, 1]."""
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    """Per-channel standard deviation that divides them."""


def widen(roi: RoI, context: float, width: int, height: int) -> RoI:
    """`roi` widened by `context` of its own size on each side, clipped at the frame.

    Only the added margin can be clipped: the RoI itself was checked to lie inside.
    """
    margin_x = round(context * (roi.x_max - roi.x_min))
    margin_y = round(context * (roi.y_max - roi.y_min))
    return RoI(
        max(0, roi.x_min - margin_x),
        max(0, roi.y_min - margin_y),
        min(width, roi.x_max + margin_x),
        min(height, roi.y_max + margin_y),
    )


def crop(frame_HW: Pixels, roi: RoI, facts: Preprocessing) -> Pixels:
    """The widened RoI cut from the frame at its own resolution."""
    height, width = frame_HW.shape
    box = widen(roi, facts.context, width, height)
    return frame_HW[box.y_min : box.y_max, box.x_min : box.x_max]


def resize(crop_HW: Pixels, facts: Preprocessing) -> Pixels:
    """Bilinear, antialiased resize to (S, S); the crop comes first: nothing outside leaks in."""
    size = (facts.size, facts.size)
    return np.asarray(Image.fromarray(crop_HW).resize(size, Image.Resampling.BILINEAR))


def normalise(crops_BSS: torch.Tensor, facts: Preprocessing) -> torch.Tensor:
    """Uint8 crops (B, S, S) -> float32 network input (B, 3, S, S), grey in all three channels."""
    mean = torch.tensor(facts.mean, device=crops_BSS.device).view(1, 3, 1, 1)
    std = torch.tensor(facts.std, device=crops_BSS.device).view(1, 3, 1, 1)
    return (crops_BSS[:, None].float() / 255 - mean) / std
