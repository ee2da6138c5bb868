"""A torchvision ResNet trunk with linear heads.

Shapes in names: B batch, L logits of all heads, C channels and h, w of the last feature map.
"""

from __future__ import annotations

from typing import Literal

import torch
import torchvision
from torch import nn

Architecture = Literal["resnet18", "resnet34", "resnet50", "resnet101"]

TRUNK = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""torchvision's names of what the trunk is made of, in order."""


class Network(nn.Module):
    """ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385) with `n_logits` linear outputs.

    The heads share one `Linear`, a row of its weight for each logit. Being linear on globally
    averaged features, each logit's Grad-CAM follows from its row (see `model_def.gradcam`).
    """

    def __init__(self, architecture: Architecture, n_logits: int) -> None:
        super().__init__()
        resnet = torchvision.models.get_model(architecture, weights=None)
        self.trunk = nn.Sequential(*(getattr(resnet, name) for name in TRUNK))
        self.heads = nn.Linear(resnet.fc.in_features, n_logits)

    def forward(self, images_B3SS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (B, 3, S, S) -> logits (B, L), last feature map (B, C, h, w)."""
        features_BChw: torch.Tensor = self.trunk(images_B3SS)
        return self.heads(features_BChw.mean(dim=(2, 3))), features_BChw

    def keep_logits(self, indices: list[int]) -> None:
        """Drop all logits but `indices`, in that order (in place)."""
        kept = nn.Linear(self.heads.in_features, len(indices))
        with torch.no_grad():
            kept.weight.copy_(self.heads.weight[indices])
            kept.bias.copy_(self.heads.bias[indices])
        self.heads = kept


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; in software it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
