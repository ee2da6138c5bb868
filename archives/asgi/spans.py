"""The spans of a request: all of it, its wait in the queue, and the stages of its batch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sonode.traces import Traces, place_of

NAMES = {
    "preprocess": "decode",
    "inference": "network",
    "explain": "explain",
    "postprocess": "postprocess",
}
"""The handler's stages, by what their spans are called."""


class Answered(NamedTuple):
    """A request that has its answer."""

    traceparent: str
    began: float
    """When it was whole and waited for a worker; times here are of `time.monotonic`."""
    status: int


def trace(
    traces: Traces,
    batch: Sequence[Answered],
    taken: float,
    answered: float,
    stages: Mapping[str, tuple[float, float]],
    facts: Mapping[str, str],
) -> None:
    """Hand over the spans of a batch, when a worker has `taken` and `answered` it."""
    since_epoch = time.time() - time.monotonic()
    of_batch = [(NAMES[stage], times) for stage, times in stages.items() if stage in NAMES]
    for one in batch:
        told: dict[str, str | int] = {
            "http.response.status_code": one.status,
            "sonode.batch": len(batch),
            **facts,
        }
        seconds = one.began + since_epoch, answered + since_epoch
        parent = place_of(one.traceparent)
        whole = traces.add("server", parent, seconds, told, failed=one.status >= 500)
        for name, (began, ended) in [("queue", (one.began, taken)), *of_batch]:
            traces.add(name, whole, (began + since_epoch, ended + since_epoch), {})
