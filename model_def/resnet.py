"""The trunks of ResNets, equal to torchvision's in names, order and numbers.

Its own file, since `import torchvision` loads torch's compiler, which takes a worker over a third
of its start (1.2 of 3.5 s of a core).
"""

from __future__ import annotations

import torch
from torch import nn

PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""torchvision's names of what a trunk is made of, in order."""

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
"""How many blocks each of the four layers has."""

WITH_BOTTLENECKS = ("resnet50", "resnet101")


class Block(nn.Module):
    """Two convolutions, or three with a bottleneck, beside a shortcut.

    He et al. 2016, https://arxiv.org/abs/1512.03385; as in torchvision the stride of a bottleneck
    stands at its 3 x 3 convolution ("v1.5").
    """

    def __init__(self, incoming: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        channels = 4 * width if bottleneck else width
        downsample = None
        if stride != 1 or incoming != channels:
            downsample = nn.Sequential(
                nn.Conv2d(incoming, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        if bottleneck:
            parts = [(width, 1, 1), (width, 3, stride), (channels, 1, 1)]
        else:
            parts = [(channels, 3, stride), (channels, 3, 1)]
        self._convolutions = len(parts)
        for number, (out, kernel, step) in enumerate(parts, start=1):
            convolution = nn.Conv2d(incoming, out, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(out))
            incoming = out
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Feature map to feature map (B, channels, h, w)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self._convolutions + 1):
            x = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x))
            if number < self._convolutions:
                x = self.relu(x)
        x += shortcut
        found: torch.Tensor = self.relu(x)
        return found


def trunk(architecture: str) -> tuple[nn.Sequential, int]:
    """A trunk of `BLOCKS` with the weights that torchvision draws from the same seed; its channels.

    Images (B, 3, S, S) -> feature map (B, channels, S / 32, S / 32).
    """
    bottleneck = architecture in WITH_BOTTLENECKS
    parts = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = 64
    for place, blocks in enumerate(BLOCKS[architecture]):
        width, layer = 64 * 2**place, nn.Sequential()
        for number in range(blocks):
            stride = 2 if place and not number else 1
            layer.append(Block(channels, width, stride, bottleneck=bottleneck))
            channels = 4 * width if bottleneck else width
        parts.append(layer)
    made = nn.Sequential(*parts)
    nn.Linear(channels, 1000)  # torchvision's classifier, not kept: a seed goes on as with it
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return made, channels
