"""A trunk that ends in a feature map, with linear heads; or several such networks, averaged.

Shapes in names: B batch, M members, L logits of all heads, C channels and h, w of the last feature
map (of all members, one after the other), c those of one member.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model_def.lean_torchvision import models

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
"""Trunks of torchvision; every other name is one of timm's (`timm.list_models()`)."""

RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""torchvision's names of what a ResNet's trunk is made of, in order."""


class ArchitectureError(ValueError):
    """A trunk that there is not, or that gives no feature map."""


class Network(nn.Module):
    """A convolutional trunk with `n_logits` linear outputs.

    The trunks are ResNets (He et al. 2016, https://arxiv.org/abs/1512.03385) and what timm has, for
    example `tf_efficientnet_lite0` (Tan & Le 2019, https://arxiv.org/abs/1905.11946, without the
    parts that are slow on small devices), from all that lies before timm's pooling.

    The heads share one `Linear`, a row of its weight for each logit. Being linear on globally
    averaged features, each logit's Grad-CAM follows from its row (see `model_def.gradcam`).

    With several `members` (a deep ensemble: Lakshminarayanan et al. 2017,
    https://arxiv.org/abs/1612.01474) there is a trunk for each, and each logit is the mean of the
    members' logits. A mean of linear heads is a linear head on all members' features, whose weight
    is theirs side by side, divided by M: what runs or explains one network does so with members.

    The mean is of logits, before any sigmoid. In a chain those are the logits of the conditional
    probabilities: one conditional probability comes out of each, and a head's is still the product
    of these along the chain, so that no child is ever more probable than its parent, and a
    categorical child's labels sum to it. `model_def.heads` need not know of members.

    Raises ArchitectureError: no such trunk here, or it gives no feature map.
    """

    member_bias_ML: torch.Tensor
    """Each member's own bias; only with several."""

    def __init__(self, architecture: str, n_logits: int, members: int = 1) -> None:
        super().__init__()
        if architecture in RESNETS:
            resnet = models.get_model(architecture, weights=None)
            trunk: nn.Module = nn.Sequential(*(getattr(resnet, name) for name in RESNET_PARTS))
            channels = resnet.fc.in_features
        else:
            trunk, channels = _timm_trunk(architecture)
        self.members = members
        if members > 1:
            trunk = _SideBySide(copy.deepcopy(trunk) for _ in range(members))
            self.register_buffer("member_bias_ML", torch.zeros(members, n_logits))
        self.trunk = trunk
        self.heads = nn.Linear(members * channels, n_logits)

    def forward(self, images_B3SS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (B, 3, S, S) -> logits (B, L), last feature map (B, C, h, w)."""
        features_BChw: torch.Tensor = self.trunk(images_B3SS)
        return self.heads(features_BChw.mean(dim=(2, 3))), features_BChw

    @torch.no_grad()
    def member_logits(self, features_BChw: torch.Tensor) -> torch.Tensor:
        """What each of several members says by itself (M, B, L), from `forward`'s feature map."""
        mean_BC, weight_LC = features_BChw.float().mean(dim=(2, 3)), self.heads.weight
        mean_BMc = mean_BC.view(len(mean_BC), self.members, -1)
        weight_LMc = weight_LC.view(len(weight_LC), self.members, -1) * self.members
        logits_MBL: torch.Tensor = torch.einsum("bmc,lmc->mbl", mean_BMc, weight_LMc)
        return logits_MBL + self.member_bias_ML[:, None]

    def keep_logits(self, indices: list[int]) -> None:
        """Drop all logits but `indices`, in that order (in place)."""
        kept = nn.Linear(self.heads.in_features, len(indices))
        with torch.no_grad():
            kept.weight.copy_(self.heads.weight[indices])
            kept.bias.copy_(self.heads.bias[indices])
        self.heads = kept


class _SideBySide(nn.ModuleList):
    """Trunks of one kind: their feature maps of the same images, one after the other."""

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        return torch.cat([trunk(images_B3SS) for trunk in self], dim=1)


def joined(architecture: str, networks: Sequence[Network]) -> Network:
    """One network of several of that trunk, with the same logits: see `Network`."""
    members = len(networks)
    whole = Network(architecture, networks[0].heads.out_features, members)
    assert isinstance(whole.trunk, _SideBySide)
    for trunk, its in zip(whole.trunk, networks, strict=True):
        trunk.load_state_dict(its.trunk.state_dict())
    with torch.no_grad():
        weights = [its.heads.weight for its in networks]
        whole.heads.weight.copy_(torch.cat(weights, dim=1) / members)
        whole.member_bias_ML.copy_(torch.stack([its.heads.bias for its in networks]))
        whole.heads.bias.copy_(whole.member_bias_ML.mean(dim=0))
    return whole.eval()


def _timm_trunk(architecture: str) -> tuple[nn.Module, int]:
    """A network of timm, with random weights, up to its last feature map; and that map's channels.

    Its name is looked up first: timm takes a path or an address, too, and would fetch from it.
    """
    try:
        import timm
    except ImportError as error:
        raise ArchitectureError(
            f"architecture {architecture}: its network comes with timm, which is not installed; "
            "run pip install timm"
        ) from error
    known = [*RESNETS, *timm.list_models()]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known) or [*RESNETS, "tf_efficientnet_lite0"]
        raise ArchitectureError(
            f"architecture {architecture}: unknown; give a name of timm.list_models(), for example "
            f"{', '.join(near)}"
        )
    try:
        trunk = timm.create_model(architecture, pretrained=False, num_classes=0, global_pool="")
        with torch.no_grad():
            shape = trunk.eval()(torch.zeros(1, 3, 64, 64)).shape
    except Exception as error:  # of any kind: these are a thousand networks
        raise ArchitectureError(
            f"architecture {architecture}: gives no feature map of 64 x 64 pixels "
            f"({' '.join(str(error).split())}); give a convolutional network that takes any size, "
            "for example tf_efficientnet_lite0"
        ) from error
    if len(shape) != 4 or not 1 < shape[2] == shape[3]:  # tokens, or channels come last
        raise ArchitectureError(
            f"architecture {architecture}: gives no feature map (channels, height, width) but "
            f"{tuple(shape[1:])}; give a convolutional network, for example tf_efficientnet_lite0"
        )
    return trunk.train(), shape[1]


def average(features_BChw: torch.Tensor) -> npt.NDArray[np.float32]:
    """The averaged features (B, C) that the heads see, on the CPU."""
    features_BC: npt.NDArray[np.float32] = features_BChw.mean(dim=(2, 3)).cpu().numpy()
    return features_BC


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; in software it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
