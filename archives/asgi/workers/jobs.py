"""A version's plan, the requests that wait for it, and the places of its workers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from archives.asgi.workers.worker_process import Answer, Asked, Worker


@dataclass(frozen=True)
class Plan:
    """How a version is run."""

    workers: int
    batch_size: int
    max_batch_delay_s: float
    response_timeout_s: float
    startup_timeout_s: float
    queue_size: int
    gpus: int


@dataclass(eq=False)
class Job:
    """A request that waits for its answer."""

    asked: Asked
    label: str
    """Of its version in TorchServe's metrics: `default` where its URL names none."""
    answer: asyncio.Future[Answer]
    began: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Slot:
    """The place of one worker, which is taken by the next one when it ends."""

    name: str
    gpu: int | None
    first: asyncio.Future[None]
    """Done when its first worker has started."""
    worker: Worker | None = None
    broken: bool = False
    """The last attempt to start a worker failed."""
    task: asyncio.Task[None] | None = None
