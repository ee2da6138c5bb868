"""The engines that torch runs: eager float32 (the reference), compiled, and autocast for CUDA.

Shapes in names as in `handlers.engines.base`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from handlers.engines.base import BF16_TOLERANCE, FP32_TOLERANCE, Forward, logits_of
from model_def.network import Network, cpu_has_bf16
from model_def.preprocessing import Preprocessing, normalise


class Trunk(nn.Module):
    """Uint8 crops (B, S, S) -> features (B, C, h, w): normalisation and the network's trunk."""

    def __init__(self, network: Network, facts: Preprocessing) -> None:
        super().__init__()
        self.trunk, self.facts = network.trunk, facts

    def forward(self, crops_BSS: torch.Tensor) -> torch.Tensor:
        """See the class."""
        images_B3SS = normalise(crops_BSS, self.facts).contiguous(memory_format=torch.channels_last)
        features_BChw: torch.Tensor = self.trunk(images_B3SS)
        return features_BChw


class EagerEngine:
    """Plain torch in float32, channels last, on the CPU or one CUDA device: the reference."""

    tolerance = FP32_TOLERANCE
    micro_batch = 8
    max_concurrency = 1

    def __init__(self, network: Network, facts: Preprocessing, device: torch.device) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trunk, self.device = Trunk(self.network, facts), device
        self.name = f"eager-{device.type}-fp32"

    def forward(self, crops_BSS: torch.Tensor) -> Forward:
        """See `Engine`."""
        with torch.inference_mode():
            features_BChw = self.trunk(crops_BSS.to(self.device))
            return Forward(logits_of(self.network, features_BChw).cpu(), features_BChw)


class CompileEngine:
    """torch.compile with frozen weights, bfloat16 autocast where the CPU has it; needs a C++
    compiler and about half a minute at start.

    It is compiled for two sizes, one row and `micro_batch`; other numbers of rows are padded, since
    each new size would be compiled again.
    """

    micro_batch = 8
    max_concurrency = 1

    def __init__(self, network: Network, facts: Preprocessing, device: torch.device) -> None:
        self.bf16 = device.type == "cuda" or cpu_has_bf16()
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.trunk = torch.compile(
            Trunk(self.network, facts), dynamic=False, options={"freezing": True}
        )
        self.tolerance = BF16_TOLERANCE if self.bf16 else FP32_TOLERANCE
        self.name = f"compile-{device.type}-{'bf16' if self.bf16 else 'fp32'}"
        for rows in (1, self.micro_batch):
            self.forward(torch.zeros((rows, facts.size, facts.size), dtype=torch.uint8))

    def forward(self, crops_BSS: torch.Tensor) -> Forward:
        """See `Engine`."""
        with torch.no_grad():  # freezing asks for it; it takes no inference_mode
            features_BChw = torch.cat(
                [self._part(part) for part in torch.split(crops_BSS, self.micro_batch)]
            )
            return Forward(logits_of(self.network, features_BChw).cpu(), features_BChw)

    def _part(self, crops_BSS: torch.Tensor) -> torch.Tensor:
        rows = len(crops_BSS)
        if 1 < rows < self.micro_batch:
            padding = crops_BSS.new_zeros((self.micro_batch - rows, *crops_BSS.shape[1:]))
            crops_BSS = torch.cat([crops_BSS, padding])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            features_BChw: torch.Tensor = self.trunk(crops_BSS.to(self.device))
        return features_BChw[:rows].float()


class AutocastEngine:
    """bfloat16 autocast in channels last, for CUDA: pinned transfers, and two batches in flight.

    Each of the two threads that call it has a stream of its own, so the copies of one batch run
    beside the kernels of the other. Written for CUDA and tested on the CPU, where streams and
    pinning fall away; no GPU has run it yet.
    """

    tolerance = BF16_TOLERANCE
    micro_batch = 16
    max_concurrency = 2

    def __init__(self, network: Network, facts: Preprocessing, device: torch.device) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trunk, self.device = Trunk(self.network, facts), device
        self.name = f"{device.type}-bf16"
        # Kernels are chosen by measurement for each size, which repeats: micro-batches are full.
        torch.backends.cudnn.benchmark = device.type == "cuda"

    def forward(self, crops_BSS: torch.Tensor) -> Forward:
        """See `Engine`."""
        with self._stream(), torch.inference_mode():
            if self.device.type == "cuda":
                crops_BSS = crops_BSS.pin_memory()
            with torch.autocast(self.device.type, torch.bfloat16):
                features_BChw = self.trunk(crops_BSS.to(self.device, non_blocking=True))
            features_BChw = features_BChw.float()
            # The copy to the CPU waits for this stream, so that features are whole for any other.
            return Forward(logits_of(self.network, features_BChw).cpu(), features_BChw)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if self.device.type != "cuda":
            yield
            return
        with torch.cuda.stream(torch.cuda.Stream(self.device)):  # type: ignore[no-untyped-call]  # from torch's pool: costs nothing
            yield
