"""How the forward pass runs: one network, several engines, all proved on the golden examples.

An engine has a `name` (what every result states), a `tolerance` (the largest difference of a
probability to the float32 one), a `micro_batch` (rows that go through it together) and `lanes`
(threads that may usefully call it at once). `forward` is thread-safe. The trunk runs in the
engine's precision; the heads always in float32, from the averaged features.

Shapes in names: B rows, S the network's input side, L logits, C channels and h, w of the last
feature map.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import nn

from handlers.settings import EngineName, Settings
from model_def.network import Network, cpu_has_bf16
from model_def.preprocessing import Preprocessing, normalise

logger = logging.getLogger(__name__)

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
    lanes: int

    def forward(self, crops_BSS: torch.Tensor) -> Forward:
        """Logits and features of uint8 crops, for any number of rows."""


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


def logits_of(network: Network, features_BChw: torch.Tensor) -> torch.Tensor:
    """The heads in float32, whatever the trunk ran in."""
    logits_BL: torch.Tensor = network.heads(features_BChw.mean(dim=(2, 3)))
    return logits_BL


class EagerEngine:
    """Plain torch in float32, channels last, on the CPU or one CUDA device: the reference."""

    tolerance = FP32_TOLERANCE
    micro_batch = 8
    lanes = 1

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
    each new size would be compiled anew.
    """

    micro_batch = 8
    lanes = 1

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
    lanes = 2

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


def choose_device(gpu_id: int | None) -> torch.device:
    """The GPU that TorchServe assigned to this worker, or the CPU where it assigned none."""
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device("cuda", int(gpu_id))
    return torch.device("cpu")


def candidates(settings: Settings, device: torch.device) -> list[EngineName]:
    """The engines to try, in order; `auto` is the fastest that device and installed extras have."""
    first: EngineName
    if settings.engine != "auto":
        first = settings.engine
    elif device.type == "cuda":
        first = "cuda"
    else:
        from handlers.openvino_engine import installed

        first = "openvino" if installed() else "eager"
    return list(dict.fromkeys([first, *settings.fallback]))


def first_that_holds(names: Sequence[EngineName], use: Callable[[EngineName], float]) -> float:
    """Give the engines to `use` until one starts and proves itself; what it returns for that one.

    Raises:
        RuntimeError: what the last one failed with (EngineUnavailable, GoldenMismatch, torch's).
    """
    for name, following in zip(names, [*names[1:], None], strict=True):
        try:
            return use(name)
        except RuntimeError as error:
            if following is None:
                raise
            logger.warning("engine %s is not used: %s; going on to %s", name, error, following)
    raise AssertionError("no engine to try")


def build(
    name: EngineName,
    network: Network,
    facts: Preprocessing,
    device: torch.device,
    settings: Settings,
) -> Engine:
    """The engine of that name around a network in eval mode.

    Raises:
        EngineUnavailable: not on this machine; with what it needs.
    """
    if device.type == "cuda":
        # cuDNN convolves float32 in TF32, of 10 bits, unless told otherwise: neither the reference
        # nor what heat maps compute would be float32. No GPU has run it yet.
        torch.backends.cudnn.allow_tf32 = False
    if name.startswith("openvino"):
        from handlers.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(
            network, facts, settings.threads, bf16=name == "openvino" and cpu_has_bf16()
        )
    if name == "cuda":
        if device.type != "cuda":
            raise EngineUnavailable("engine cuda: no CUDA device here; choose another engine")
        return AutocastEngine(network, facts, device)
    if name == "compile":
        return CompileEngine(network, facts, device)
    return EagerEngine(network, facts, device)
