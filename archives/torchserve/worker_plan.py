"""How many workers a node has, with which threads and batches: by its cores, not by the archive."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple


class Plan(NamedTuple):
    """Workers of one model on one node."""

    workers: int
    threads: int
    """Of each worker, for decoding and for the forward pass."""
    batch_size: int
    """Requests that a worker takes at once."""
    max_batch_delay_ms: int
    """How long it waits for more of them; a lone request waits this long for nothing."""

    def registration(self) -> dict[str, str]:
        """The same as parameters of TorchServe's `POST /models`."""
        return {
            "initial_workers": str(self.workers),
            "batch_size": str(self.batch_size),
            "max_batch_delay": str(self.max_batch_delay_ms),
        }


def plan() -> Plan:
    """For this machine.

    On the CPU two workers halve the cores, so that one computes while the other waits for its next
    requests; small batches keep both at work (measured: 2 workers with batches of 4 used 1.9 of 2
    cores, one worker with batches of 8 used 1.6, two with one request each 1.25). A GPU has one
    worker, whose batches are two micro-batches of the engine: TorchServe gives the workers of a
    model to its GPUs in turn.
    """
    import joblib  # here: it imports numpy, which a gateway's other work does not need

    cores = joblib.cpu_count()  # within affinity and the container's CPU quota
    if gpus := count_gpus():
        return Plan(gpus, max(1, cores // gpus), batch_size=32, max_batch_delay_ms=2)
    workers = min(2, cores)
    threads = max(1, cores // workers)
    return Plan(workers, threads, batch_size=4 * threads, max_batch_delay_ms=1)


def count_gpus() -> int:
    """GPUs that CUDA_VISIBLE_DEVICES leaves of those of the machine, asked for as TorchServe does.

    0 where the driver does not answer: TorchServe then counts none either.
    """
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return 0
    there = len(asked.stdout.split())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    named = [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return min(there, len(named))
