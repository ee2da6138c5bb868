"""A torchvision ResNet trunk with one logit per head.

Shapes in names: B batch, K heads, C channels and h, w of the last feature map.
"""

from __future__ import annotations

from typing import Literal

import torch
import torchvision
from torch import nn

Architecture = Literal["resnet18", "resnet34", "resnet50", "resnet101"]


class Network(nn.Module):
    """ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385) with `n_heads` linear heads.

    The heads share one `Linear`: row k of its weight is head k. Being linear on globally averaged
    features, each head's Grad-CAM follows from its row (see `handlers.attribution`).
    """

    def __init__(self, architecture: Architecture, n_heads: int) -> None:
        super().__init__()
        resnet = torchvision.models.get_model(architecture, weights=None)
        self.trunk = nn.Sequential(
            resnet.conv1,
            resnet.bn1,
            resnet.relu,
            resnet.maxpool,
            resnet.layer1,
            resnet.layer2,
            resnet.layer3,
            resnet.layer4,
        )
        self.heads = nn.Linear(resnet.fc.in_features, n_heads)

    def forward(self, images_B3SS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (B, 3, S, S) -> logits (B, K), last feature map (B, C, h, w)."""
        features_BChw: torch.Tensor = self.trunk(images_B3SS)
        return self.heads(features_BChw.mean(dim=(2, 3))), features_BChw

    def keep_heads(self, indices: list[int]) -> None:
        """Drop all heads but `indices`, in that order (in place)."""
        kept = nn.Linear(self.heads.in_features, len(indices))
        with torch.no_grad():
            kept.weight.copy_(self.heads.weight[indices])
            kept.bias.copy_(self.heads.bias[indices])
        self.heads = kept
