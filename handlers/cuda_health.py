"""Ends a worker whose CUDA context is lost.

After a device-side assert, or another error that CUDA calls sticky, every further call in the
process fails. The process can only end; TorchServe then starts a new one.
"""

from __future__ import annotations

import logging
import os
import threading

import torch

logger = logging.getLogger(__name__)

EXIT_CODE = 70  # EX_SOFTWARE
IDLE_S = 5.0


def context_is_lost(device: torch.device) -> bool:
    """Whether every call on this device fails from now on; called after an error on it.

    It tries the device and does not judge by the error: out of memory, for example, leaves the
    device usable.
    """
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        torch.ones(1, device=device).item()
    except RuntimeError:
        return True
    return False


def end_process() -> None:
    """End this process at once, without clean-up: CUDA's would hang or fail.

    TorchServe answers the batch that the process holds with 500. It forgets the requests of a batch
    that it is still collecting, so the time to end is the start of the next batch.
    """
    os._exit(EXIT_CODE)


def end_process_when_idle() -> None:
    """End it without waiting for a batch, so that the next one finds a working worker."""
    logger.error("the CUDA context is lost: this worker exits, and TorchServe starts a new one")
    timer = threading.Timer(IDLE_S, end_process)
    timer.daemon = True
    timer.start()
