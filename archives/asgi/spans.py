"""The spans of a request: all of it, its wait in the queue, and the stages of its batch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sonode.traces import Place, Traces

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
    stages: Mapping[str, tuple[float, float]],
    facts: Mapping[str, str],
) -> None:
    """Hand over the spans of a batch, which a worker has `taken` and just answered."""
    now = time.monotonic()
    since_epoch = time.time() - now
    for one in batch:
        parent = Place.of(one.traceparent)
        whole = Place.under(parent)

        def add(name: str, began: float, ended: float, root: Place = whole) -> None:
            seconds = began + since_epoch, ended + since_epoch
            traces.add(name, Place.under(root), root, seconds, {})

        add("queue", one.began, taken)
        for stage, (began, ended) in stages.items():
            if stage in NAMES:
                add(NAMES[stage], began, ended)
        told: dict[str, str | int] = {
            "http.response.status_code": one.status,
            "sonode.batch": len(batch),
            **facts,
        }
        seconds = one.began + since_epoch, now + since_epoch
        traces.add("server", whole, parent, seconds, told, failed=one.status >= 500)
