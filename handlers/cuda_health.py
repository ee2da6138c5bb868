"""The end of a worker whose CUDA context is lost.

After a device-side assert, or another error that CUDA calls sticky, every further call in the
process fails: it can only be ended, and TorchServe then starts another.
"""

from __future__ import annotations

import logging
import os
import threading

import torch

logger = logging.getLogger(__name__)

EXIT_CODE = 70  # EX_SOFTWARE
IDLE_S = 5.0


def is_poisoned(device: torch.device) -> bool:
    """Whether nothing works on this device any more; asked after an error on it.

    It is asked of the device, not of the error: running out of memory, say, leaves it usable.
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
    """End it without a next batch, so that the next patient's finds a sound worker."""
    logger.error("the CUDA context is lost: this worker ends, and TorchServe starts another")
    timer = threading.Timer(IDLE_S, end_process)
    timer.daemon = True
    timer.start()
