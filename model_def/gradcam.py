"""Grad-CAM: where in the crop a head's logit comes from, for serving and for the evidence.

Shapes in names: C channels and h, w of the last feature map; H, W of the crop.
"""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from model_def.preprocessing import Pixels

OVERLAY_SIDE = 512  # pixels of an overlay's longer side

# Blue to red as in the paper's figures, without the false edges of jet (Mikhailov 2019).
_COLOURS_255 = (matplotlib.colormaps["turbo"](np.arange(256))[:, :3] * 255).astype(np.float32)


def grad_cam(features_Chw: torch.Tensor, weight_C: torch.Tensor) -> npt.NDArray[np.float32]:
    """Grad-CAM (h, w) of a linear head on globally averaged features, >= 0.

    The gradient of the logit with respect to the feature map is `weight / (h * w)` everywhere, so
    the map follows from the forward pass alone: relu(sum_C weight_C * features_Chw / (h * w))
    (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391; a test compares it with Captum's
    LayerGradCam).
    """
    height, width = features_Chw.shape[1:]
    cam_hw = torch.einsum("c,chw->hw", weight_C.float(), features_Chw.float()) / (height * width)
    return cam_hw.clamp(min=0).cpu().numpy()


def overlay(crop_HW: Pixels, cam_hw: npt.NDArray[np.float32]) -> bytes:
    """PNG of the crop in its own aspect with the map over it; colour and opacity follow the map.

    The map is scaled by its own maximum: colours compare places within one image, not images.
    A map that is zero everywhere leaves the crop grey. Colour takes on the crop's lightness, so
    that the lesion's outline stays the lesion's and is not drawn by the edge of the colours.
    """
    height, width = crop_HW.shape
    scale = OVERLAY_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = np.asarray(Image.fromarray(crop_HW).resize(size, Image.Resampling.BICUBIC), np.float32)
    peak = float(cam_hw.max())
    heat = Image.fromarray(cam_hw / peak if peak > 0 else cam_hw)
    value = np.clip(np.asarray(heat.resize(size, Image.Resampling.BICUBIC)), 0, 1)
    opacity = 0.7 * value[..., None]
    lightness = 0.15 + 0.85 / 255 * grey[..., None]
    colour = _COLOURS_255[(255 * value).astype(np.uint8)] * lightness
    blended = (1 - opacity) * grey[..., None] + opacity * colour
    buffer = io.BytesIO()
    Image.fromarray(blended.round().clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
