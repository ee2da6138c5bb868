"""Which engine runs: the one that is set, or the fastest of this device, then the fallbacks.

Of itself it takes bfloat16 for ResNets alone. That changed the probabilities of a trained ResNet18
by at most 0.005 (60 boxes of BUSI), of another by up to 0.015 (443 boxes, 1.4 % by more than 0.01),
and those of EfficientNet-Lite0 (340 boxes, ImageNet weights, a logistic head) by up to 0.13, 5 % of
them by more than 0.02: a few golden examples may miss it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from handlers.engines.base import Engine, EngineUnavailable
from handlers.engines.openvino_engine import OpenVINOEngine, installed
from handlers.engines.torch_engines import AutocastEngine, CompileEngine, EagerEngine
from handlers.settings import EngineName, Settings
from model_def.network import RESNETS, Network, cpu_has_bf16
from model_def.preprocessing import Preprocessing

logger = logging.getLogger(__name__)


def choose_device(gpu_id: int | None) -> torch.device:
    """The GPU that TorchServe assigned to this worker, or the CPU where it assigned none."""
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device("cuda", int(gpu_id))
    return torch.device("cpu")


def candidates(settings: Settings, device: torch.device, architecture: str) -> list[EngineName]:
    """The engines to try, in order; `auto` is the fastest that device and installed extras have,
    in bfloat16 for ResNets alone."""
    first: EngineName
    if settings.engine != "auto":
        first = settings.engine
    elif device.type == "cuda":
        first = "cuda" if architecture in RESNETS else "eager"
    elif installed():
        first = "openvino" if architecture in RESNETS else "openvino-fp32"
    else:
        first = "eager"
    return list(dict.fromkeys([first, *settings.fallback]))


def first_that_holds(names: Sequence[EngineName], use: Callable[[EngineName], float]) -> float:
    """Give the engines to `use` until one does not raise; return what `use` returns for it.

    Raises RuntimeError: what the last one failed with (EngineUnavailable, GoldenMismatch, torch's).
    """
    for name, following in zip(names, [*names[1:], None], strict=True):
        try:
            return use(name)
        except RuntimeError as error:
            if following is None:
                raise
            logger.warning("engine %s is not used: %s; trying %s", name, error, following)
    raise AssertionError("no engine to try")


def build(
    name: EngineName,
    network: Network,
    facts: Preprocessing,
    device: torch.device,
    settings: Settings,
) -> Engine:
    """The engine of that name around a network in eval mode.

    Raises EngineUnavailable: it cannot run on this machine; the message says what it needs.
    """
    if device.type == "cuda":
        # By default cuDNN convolves float32 in TF32, of 10 bits: neither the reference nor the heat
        # maps would be float32. No GPU has run it yet.
        torch.backends.cudnn.allow_tf32 = False
    if name.startswith("openvino"):
        return OpenVINOEngine(
            network, facts, settings.threads, bf16=name == "openvino" and cpu_has_bf16()
        )
    if name == "cuda":
        if device.type != "cuda":
            raise EngineUnavailable(
                "engine cuda: no CUDA device on this machine; choose another engine"
            )
        return AutocastEngine(network, facts, device)
    if name == "compile":
        return CompileEngine(network, facts, device)
    return EagerEngine(network, facts, device)
