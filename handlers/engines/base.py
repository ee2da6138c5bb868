"""What an inference engine is: one way to run a network's forward pass.

An engine has a `name` (what every result states), a `tolerance` (the largest difference of a
probability to the float32 one), a `micro_batch` (rows that go through it together) and
`max_concurrency` (threads that may usefully call it at once). `forward` is thread-safe. The trunk
runs in the engine's precision; the heads always in float32, from the averaged features.

Shapes in names: B rows, S the network's input side, L logits, C channels and h, w of the last
feature map.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from model_def.network import Network

FP32_TOLERANCE = 1e-3  # sums in another order, on other hardware
BF16_TOLERANCE = 1e-2  # 8 bits of mantissa through some 50 layers


class EngineUnavailable(RuntimeError):  # noqa: N818
    """An engine that this machine cannot run."""


class Forward(NamedTuple):
    """What a forward pass gives, in float32: logits (B, L) on the CPU, features (B, C, h, w)."""

    logits_BL: torch.Tensor
    features_BChw: torch.Tensor


class Engine(Protocol):
    """See the module."""

    name: str
    tolerance: float
    micro_batch: int
    max_concurrency: int

    def forward(self, crops_BSS: torch.Tensor) -> Forward:
        """Logits and features of uint8 crops, for any number of rows."""


def logits_of(network: Network, features_BChw: torch.Tensor) -> torch.Tensor:
    """The heads in float32, whatever the trunk ran in."""
    logits_BL: torch.Tensor = network.heads(features_BChw.mean(dim=(2, 3)))
    return logits_BL
