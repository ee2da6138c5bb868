"""The gateway's logs as rows: one per client's request, one per attempt at a node."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

OWN_CODES = frozenset(
    {
        *("", "bad_request", "unauthorized", "not_found", "method_not_allowed", "too_slow"),
        *("request_too_large", "too_many_requests", "https_required", "client_left"),
        *("gateway_failed", "node_unreachable", "unavailable", "node_too_slow"),
    }
)
"""`code` where no handler has said anything; nginx.conf.j2 has the same words."""


class LogTail:
    """The rows of a log, as they come; a line that is being written waits for its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode: int | None = None

    def rows(self) -> Iterator[Row]:
        """Yield what is new since the last call; from the start where the log was begun anew."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._inode, self._offset = status.st_ino, 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)


def started(row: Row) -> float:
    """Unix time at which a row's request began."""
    return float(row["t"]) - float(row["ms"]) / 1000


def scores(row: Row) -> dict[str, float]:
    """Probability by head; empty where there was no score."""
    return {head: float(value) for head, value in _pairs(row["scores"])}


def labels(row: Row) -> dict[str, str]:
    """Label by head; empty where there was no score."""
    return dict(_pairs(row["labels"]))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for item in filter(None, text.split(";")):
        name, _, value = item.partition("=")
        yield name, value
