"""Heat maps: what in the crop a head's logit comes from, by method, for the rows that ask.

`gradcam` follows from the features of the forward pass and costs next to nothing. The others run
the torch network in float32 again, through Captum, whatever engine scores; for each map:

* `integrated_gradients` (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365): signed,
  `IG_STEPS` forward and backward passes from the crop's mean grey to the crop; the cells sum to the
  difference of the logit between the two (to within the error of the sum). Black is no neutral
  baseline in ultrasound: an anechoic lesion is black, and would explain nothing.
* `occlusion` (Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901): signed, how much the logit
  falls when a window of a quarter of the side is set to the crop's mean grey; the window moves by
  half its side: 49 forward passes at 256 pixels.
* `guided_gradcam` (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391): magnitude, the finer
  structure within the Grad-CAM: guided backpropagation times Grad-CAM, one forward and backward
  pass each. It is defined for ReLUs (ReLU6 is one, cut at 6), and refused for a trunk without any.

Shapes in names: S side of the input; L logits; C channels, h, w of a feature map or of a grid.
"""

from __future__ import annotations

import copy
import math
import threading
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from handlers.errors import ExplanationFailed, ExplanationTooLong
from handlers.requests import METHODS
from model_def.checkpoint import ModelCard
from model_def.gradcam import grad_cam
from model_def.heads import deciding, logit_slices
from model_def.network import Network
from model_def.preprocessing import Pixels, normalise

SIGNED = ("integrated_gradients", "occlusion")

IG_STEPS = 32
PASSES_TOGETHER = 16  # evaluations of one image that go through the network as a batch
# Methods that give a value per pixel are summed up in cells of a grid, at most so many a side.
FINE, COARSE = 64, 16
OCCLUSION = 8  # cells a side; a window is two of them wide


class Attribution(NamedTuple):
    """A map in the units of the logit, and the logit that it explains."""

    map_hw: npt.NDArray[np.float32]
    """From the crop's top left; a cell covers 1/h by 1/w of the crop."""
    target: str
    """The logit, in words."""


class Attributor:
    """Attributes the logits of one network, in any number of threads."""

    def __init__(self, network: Network, card: ModelCard) -> None:
        self.network, self.card = network, card
        self.slices = logit_slices(card.heads)
        self.heads = {head.name: head for head in card.heads}
        self._lock = threading.Lock()
        self._twin: _Logits | None = None

    def attribute(
        self,
        method: str,
        head: str,
        input_SS: Pixels,
        logits_L: torch.Tensor,
        features_Chw: torch.Tensor,
        deadline: float = math.inf,
    ) -> Attribution:
        """The map of one head for one image that was scored.

        A binary head's own logit is explained; in a chain it is that of the conditional
        probability, under a max-constraint that of the head which decided. Of a categorical head
        it is the logit of its most probable label. `Attribution.target` names it.

        `deadline` is of `time.monotonic()`; after it no map is begun but Grad-CAM.

        Raises:
            ExplanationFailed: the map has values that are not finite.
            ExplanationTooLong: the deadline came first.
        """
        decides = deciding(logits_L, self.card.heads, self.card.hierarchy)[head]
        own = self.slices[decides]
        target = own.start + int(logits_L[own].argmax())
        if method == "gradcam":
            weight_C = self.network.heads.weight[target].detach().to(features_Chw.device)
            map_hw = grad_cam(features_Chw, weight_C)
        else:
            with self._lock:  # Captum hooks into modules, and one map at a time bounds memory
                # Asked in here: to wait for the maps of other threads takes time, too.
                if time.monotonic() > deadline:
                    raise ExplanationTooLong(
                        f"explain: the time limit of this batch is reached before {method}; send "
                        "it again, with fewer heads, or with gradcam, which has no time limit"
                    )
                map_hw = self._through_captum(method, input_SS, target)
        if not np.isfinite(map_hw).all():
            raise ExplanationFailed(
                f"explain: the {method} map of {head} is NaN or infinite; send it without explain"
            )
        return Attribution(map_hw, self._describe(head, decides, target - own.start))

    def _describe(self, asked: str, decides: str, label: int) -> str:
        head = self.heads[decides]
        text = f"logit of {decides}"
        if decides != asked:
            return f"{text}, which decides {asked}"
        if head.categorical:
            text += f" = {head.labels[label]}"
        if head.parent and self.card.hierarchy == "chain":
            text += f" given {head.parent}"
        return text

    def _through_captum(
        self, method: str, input_SS: Pixels, target: int
    ) -> npt.NDArray[np.float32]:
        if self._twin is None:
            self._twin = _Logits(_twin(self.network))
        device = self.network.heads.weight.device
        mean_SS = np.full_like(input_SS, round(float(input_SS.mean())))
        # Not in inference mode: its tensors have no gradients.
        with torch.inference_mode(False), torch.enable_grad():
            pair_2SS = torch.from_numpy(np.stack([input_SS, mean_SS])).to(device)
            images_23SS = normalise(pair_2SS, self.card.preprocessing)
            image_13SS = images_23SS[:1].requires_grad_()
            map_hw = _CAPTUM[method](self._twin, image_13SS, images_23SS[1:], target)
            return map_hw.detach().float().cpu().numpy()


class _Logits(nn.Module):
    """The logits alone: Captum takes no second output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        logits_BL: torch.Tensor = self.network(images_B3SS)[0]
        return logits_BL


def _twin(network: Network) -> Network:
    """Modules of their own around the same tensors: hooks on them never meet a forward pass that
    scores in another thread, and the weights are not held twice."""
    tensors = [*network.parameters(), *network.buffers()]
    twin: Network = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    for module in [*twin.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):  # Captum guides through ReLUs alone
                setattr(module, name, nn.Sequential(nn.ReLU(), nn.Hardtanh(0, 6)))
    # Gradients are taken with respect to the image alone; scoring needs none at all.
    return twin.eval().requires_grad_(False)


def _integrated_gradients(
    logits: _Logits, image_13SS: torch.Tensor, mean_13SS: torch.Tensor, target: int
) -> torch.Tensor:
    from captum.attr import IntegratedGradients

    values_13SS = IntegratedGradients(logits).attribute(
        image_13SS,
        baselines=mean_13SS,
        target=target,
        n_steps=IG_STEPS,
        internal_batch_size=PASSES_TOGETHER,
    )
    # Signs alternate from pixel to pixel of speckle: summed up, a region is to be seen.
    return _cells(values_13SS.sum(dim=1), COARSE)


def _occlusion(
    logits: _Logits, image_13SS: torch.Tensor, mean_13SS: torch.Tensor, target: int
) -> torch.Tensor:
    from captum.attr import Occlusion

    stride = image_13SS.shape[-1] // OCCLUSION
    with torch.no_grad():
        values_13SS = Occlusion(logits).attribute(
            image_13SS,
            sliding_window_shapes=(3, 2 * stride, 2 * stride),
            strides=(3, stride, stride),
            baselines=mean_13SS,
            target=target,
            perturbations_per_eval=PASSES_TOGETHER,
        )
    # The three channels are hidden together and have the same value.
    side = image_13SS.shape[-1] / OCCLUSION
    return _sums(values_13SS[:, 0], OCCLUSION) / side**2


def _guided_gradcam(
    logits: _Logits, image_13SS: torch.Tensor, mean_13SS: torch.Tensor, target: int
) -> torch.Tensor:
    from captum.attr import GuidedGradCam

    if not any(isinstance(module, nn.ReLU) for module in logits.modules()):
        raise ExplanationFailed(
            "explain: guided_gradcam is defined for networks with ReLUs, and this archive's has "
            "none; use another method"
        )
    method = GuidedGradCam(logits, logits.network.trunk)
    with warnings.catch_warnings():
        # Captum warns that it sets and removes hooks; on the twin they do no harm.
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU", UserWarning)
        values_13SS = method.attribute(image_13SS, target=target, interpolate_mode="bilinear")
    return _cells(values_13SS.sum(dim=1).abs(), FINE)


def _cells(values_1SS: torch.Tensor, most: int) -> torch.Tensor:
    """Sums over cells of whole pixels where the side allows it, at most so many a side."""
    side = values_1SS.shape[-1]
    return _sums(values_1SS, -(-side // -(-side // most)))


def _sums(values_1SS: torch.Tensor, cells: int) -> torch.Tensor:
    """Sums over so many cells of equal size a side, so that what adds up to the logit still does.

    Whoever draws the map takes its cells as equal. A pixel that two of them share counts in each by
    the part of it that lies there.
    """
    side = values_1SS.shape[-1]
    edges = torch.arange(cells + 1, dtype=torch.float64) * side / cells
    pixels = torch.arange(side, dtype=torch.float64)
    from_c1, to_c1 = edges[:-1, None], edges[1:, None]
    share_cS = (torch.minimum(to_c1, pixels + 1) - torch.maximum(from_c1, pixels)).clamp(min=0)
    share_cS = share_cS.to(values_1SS)
    return share_cS @ values_1SS[0] @ share_cS.T


_CAPTUM: dict[str, Callable[[_Logits, torch.Tensor, torch.Tensor, int], torch.Tensor]] = {
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
    "guided_gradcam": _guided_gradcam,
}
assert set(METHODS) == {"gradcam", *_CAPTUM}
