"""The locator: a one-class detector, its folder (weights and card), and a frame's best proposal.

FCOS (Tian et al. 2019, https://arxiv.org/abs/1904.01355) of torchvision, on the maps of an
EfficientNet-Lite0 at strides 8, 16 and 32 under a feature pyramid (Lin et al. 2017,
https://arxiv.org/abs/1612.03144).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.transforms.v2 import functional

from model_def.preprocessing import Pixels, RoI
from sonode.console import UserError
from sonode.files.settings import faults_of

ARCHITECTURE = "tf_efficientnet_lite0"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # as its ImageNet weights expect
WEIGHTS = "weights.safetensors"
CARD = "locator.json"
_STRIDES = (8, 16, 32)
_CHANNELS = 96  # of the pyramid and of both heads


class Card(BaseModel):
    """What a locator says of itself; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sonode locator"] = "sonode locator"
    format: Literal[1] = 1
    size: int = Field(ge=64, le=1024)
    """Longest side of the network's input, in pixels; the aspect is kept."""
    min_confidence: float = Field(ge=0, le=1)
    """Less sure proposals are none: the image counts as one where nothing is found."""
    training: dict[str, Any]
    """Provenance: seed, cohort with its patients and boxes, weights, library versions."""
    measured: dict[str, Any]
    """IoU and FROC on the validation part."""


class Proposal(NamedTuple):
    """A box that the detector proposes."""

    roi: RoI
    """In pixels of the frame that was given."""
    confidence: float
    """0 to 1; comparable between proposals of one locator, and no probability."""


class Locator(NamedTuple):
    """A locator as it is used."""

    detector: FCOS
    card: Card
    sha256: str
    """Of its weights' file."""


class _Pyramid(nn.Module):
    """A trunk's maps (B, C, H/stride, W/stride), each with as many channels."""

    out_channels = _CHANNELS

    def __init__(self) -> None:
        super().__init__()
        levels = tuple(stride.bit_length() - 2 for stride in _STRIDES)  # timm counts halvings
        trunk: Any = timm.create_model(ARCHITECTURE, features_only=True, out_indices=levels)
        self.trunk = trunk
        self.pyramid = FeaturePyramidNetwork(trunk.feature_info.channels(), _CHANNELS)

    def forward(self, images_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.trunk(images_B3HW)
        found: dict[str, torch.Tensor] = self.pyramid({str(i): it for i, it in enumerate(maps)})
        return found


def build(size: int) -> FCOS:
    """A detector with random weights, for inputs whose longest side is `size`."""
    return FCOS(
        _Pyramid(),
        num_classes=1,
        min_size=size,
        max_size=size,
        image_mean=MEAN,
        image_std=STD,
        # FCOS has one anchor for each place; a box belongs to the level whose anchor fits it.
        anchor_generator=AnchorGenerator(tuple((it,) for it in _STRIDES), ((1.0,),) * 3),
        head=FCOSHead(_CHANNELS, num_anchors=1, num_classes=1, num_convs=2),
        score_thresh=0.01,
        nms_thresh=0.5,
        detections_per_img=20,
    )


def shrunk(frame_HW: Pixels, size: int) -> torch.Tensor:
    """A grey frame (H, W) as the detector's input (1, h, w), uint8, its longest side `size`."""
    image_1HW = torch.from_numpy(frame_HW.copy())[None]
    small: torch.Tensor = functional.resize(image_1HW, None, max_size=size, antialias=True)
    return small


def network_input(image_1hw: torch.Tensor) -> torch.Tensor:
    """Uint8 grey (1, h, w) -> float32 (3, h, w) in 0..1; the detector itself normalises."""
    return image_1hw.float().div(255).expand(3, -1, -1)


def proposals(detector: FCOS, frame_HW: Pixels, size: int) -> list[Proposal]:
    """All boxes in a frame, the surest first, whatever their confidence; in whole pixels."""
    height, width = frame_HW.shape
    image_1hw = shrunk(frame_HW, size)
    with torch.inference_mode():
        (found,) = detector([network_input(image_1hw)])
    scale_y, scale_x = height / image_1hw.shape[1], width / image_1hw.shape[2]
    made = []
    for box, score in zip(found["boxes"].tolist(), found["scores"].tolist(), strict=True):
        x0, y0 = max(0, round(box[0] * scale_x)), max(0, round(box[1] * scale_y))
        x1, y1 = min(width, round(box[2] * scale_x)), min(height, round(box[3] * scale_y))
        if x0 < x1 and y0 < y1:
            made.append(Proposal(RoI(x0, y0, x1, y1), score))
    return made


def write(folder: Path, detector: FCOS, card: Card) -> None:
    """Write weights and card into a folder that exists."""
    tensors = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    text = json.dumps(card.model_dump(mode="json"), indent=2, allow_nan=False)
    (folder / CARD).write_text(text + "\n")


def read(folder: Path) -> Locator:
    """The locator in a folder, ready to propose, on the CPU.

    Raises UserError: there is none, of another format, or damaged.
    """
    remedy = "give OUT of `sonode locate fit`"
    try:
        card = Card.model_validate_json((folder / CARD).read_bytes())
        data = (folder / WEIGHTS).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = Path(error.filename).name
        raise UserError(f"LOCATOR {folder}: has no {missing}; {remedy}") from None
    except ValidationError as error:
        raise UserError(
            f"LOCATOR {folder}: {CARD}: field {faults_of(error, CARD)[0]}; {remedy}"
        ) from None
    detector = build(card.size)
    try:
        detector.load_state_dict(load(data))
    except (SafetensorError, RuntimeError):
        raise UserError(
            f"LOCATOR {folder}: {WEIGHTS} is damaged, or of another locator; copy it again"
        ) from None
    return Locator(detector.eval(), card, hashlib.sha256(data).hexdigest())
