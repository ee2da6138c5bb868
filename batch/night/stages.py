"""How long each stage of a night took."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Seconds of the clock and of this process's CPUs, by the stage."""

    def __init__(self) -> None:
        self._took: dict[str, dict[str, float]] = {}
        self._open: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside; not for the stage around it."""
        begun, cpu = time.monotonic(), _cpu_seconds()
        self._open.append(name)
        mine = self._took.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0})
        try:
            yield
        finally:
            took = {"seconds": time.monotonic() - begun, "cpu_seconds": _cpu_seconds() - cpu}
            self._open.pop()
            for key, value in took.items():
                mine[key] += value
                if self._open:
                    self._took[self._open[-1]][key] -= value

    def report(self) -> dict[str, dict[str, float]]:
        """Of each stage, with its share of the seconds."""
        total = sum(it["seconds"] for it in self._took.values()) or 1.0
        return {name: {**it, "share": it["seconds"] / total} for name, it in self._took.items()}


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system
