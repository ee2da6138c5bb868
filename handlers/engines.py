"""How the forward pass runs."""

from __future__ import annotations

from typing import NamedTuple

import torch

from model_def.network import Network
from model_def.preprocessing import Preprocessing, normalise


class Forward(NamedTuple):
    """What a forward pass gives: float32 logits (B, L) on the CPU, features (B, C, h, w)."""

    logits_BL: torch.Tensor
    features_BChw: torch.Tensor


class EagerEngine:
    """Plain torch in float32, channels last, on the CPU or one CUDA device."""

    tolerance = 1e-3
    """Largest difference to a golden probability that other hardware may cause in float32."""

    def __init__(self, network: Network, facts: Preprocessing, device: torch.device) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.facts, self.device = facts, device
        self.name = f"eager-{device.type}-fp32"

    def forward(self, crops_BSS: torch.Tensor) -> Forward:
        """Logits and features of uint8 crops (B, S, S)."""
        with torch.inference_mode():
            images_B3SS = normalise(crops_BSS.to(self.device), self.facts)
            logits_BL, features_BChw = self.network(
                images_B3SS.contiguous(memory_format=torch.channels_last)
            )
        return Forward(logits_BL.cpu(), features_BChw)


def choose_device(gpu_id: int | None) -> torch.device:
    """The GPU that TorchServe assigned to this worker, or the CPU where it assigned none."""
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device("cuda", int(gpu_id))
    return torch.device("cpu")
