"""How long ago something was, even if the clock is set: within a boot by the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

CLOCK = "clock"
"""The fact of a journal's entry that holds a stamp."""


def stamp() -> dict[str, Any]:
    """Which boot of the machine it is, and the seconds since, sleep included."""
    return {"boot": _boot(), "s": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)}


class Stamped(Protocol):
    """An entry of the journal."""

    @property
    def time(self) -> float:
        """Seconds since 1970, by the clock."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """With a stamp under `CLOCK`."""


def elapsed(entry: Stamped) -> float:
    """Seconds since the entry was written, 0 and more.

    Over a boot that is what the clock says, which may have been set; where it says that the entry
    is yet to come, its time starts again.
    """
    past = since(entry.facts[CLOCK])
    return max(0.0, time.time() - entry.time) if past is None else past


def since(written: Mapping[str, Any]) -> float | None:
    """Seconds since a stamp of this boot of this machine; None for one of another."""
    now = stamp()
    same = now["boot"] and written["boot"] == now["boot"]
    return float(now["s"] - written["s"]) if same else None


@cache
def _boot() -> str:
    """Empty where the system does not say it, as in a container without /proc/sys."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
