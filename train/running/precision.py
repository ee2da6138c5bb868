"""Which precision a device trains best in, where the user does not say."""

from __future__ import annotations

from typing import Any, Literal

import torch

from model_def.network import cpu_has_bf16


def best_precision(accelerator: Any) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name of it, for the accelerator that Lightning's `trainer.accelerator` means.

    bfloat16 where the device multiplies it in hardware (twice as fast as float32 on such a CPU);
    elsewhere, and on accelerators that nobody has tried here, float32.
    """
    on_gpu = accelerator in ("cuda", "gpu", "auto") and torch.cuda.is_available()
    if on_gpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        on_mps = accelerator != "cpu" and torch.backends.mps.is_available()
        fast = accelerator in ("cpu", "auto") and not on_mps and cpu_has_bf16()
    return "bf16-mixed" if fast else "32-true"
