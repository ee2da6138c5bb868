"""Grad-CAM: where in the crop a logit comes from, for serving and for the evidence.

Shapes in names: L logits; C channels and h, w of the last feature map.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch


def grad_cam(features_Chw: torch.Tensor, weight_C: torch.Tensor) -> npt.NDArray[np.float32]:
    """Grad-CAM (h, w) of a linear head on globally averaged features, >= 0.

    The gradient of the logit with respect to the feature map is `weight / (h * w)` everywhere, so
    the map follows from the forward pass alone: relu(sum_C weight_C * features_Chw / (h * w))
    (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391; a test compares it with Captum's
    LayerGradCam). Before the relu, the cells sum to the logit less its bias.

    Of several members (see `model_def.network`) the logit is the mean of theirs, so its gradient
    with respect to member m's feature map is `weight_m / (M * h * w)`, and the members' feature
    maps, one after the other, are the channels here. The map is then the relu of the mean over the
    members of what each has before its own relu: exact for the mean logit, where a mean of the
    members' rectified maps would show what one member sees and another one speaks against.

    The cells are drawn side by side, as is usual. A cell of a ResNet looks at a wide field around
    input pixel 32 x its number, though: half a cell left of and above its own middle. Other trunks
    pad otherwise.
    """
    height, width = features_Chw.shape[1:]
    # One product of a vector and a matrix: einsum, which first copies, takes ten times as long.
    sum_n = weight_C.float() @ features_Chw.float().flatten(1)
    return (sum_n.view(height, width) / (height * width)).clamp(min=0).cpu().numpy()
