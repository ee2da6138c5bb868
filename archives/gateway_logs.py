"""What the gateway tells: a row per client's request, one per attempt at a node, and its state."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_log = logging.getLogger(__name__)

Row = dict[str, Any]

HEAD_BYTES = 256  # more than a line's time and request id

OWN_CODES = frozenset(
    {
        *("", "bad_request", "unauthorized", "not_found", "method_not_allowed", "too_slow"),
        *("request_too_large", "too_many_requests", "client_left"),
        *("gateway_failed", "node_unreachable", "unavailable", "node_too_slow"),
    }
)
"""`code` where no handler has said anything; nginx.conf.j2 has the same words."""


def told(state: Path) -> dict[str, Any]:
    """Give `seq`, the last entry of the journal that it has applied, and `nodes`: "up", or why not.

    Empty where it has told nothing yet, or a power cut has left nothing of it.
    """
    try:
        found: dict[str, Any] = json.loads((state / "gateway" / "applied.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


class LogTail:
    """The rows of a log, as they come; a line that is being written waits for its end.

    The gateway moves a log aside when it has grown (`attempts-TIME.jsonl`): those are read, too,
    where they were written to since the Unix time `since`.
    """

    def __init__(self, path: Path, since: float = 0.0) -> None:
        self.path, self.since = path, since
        # By inode, since a moved file is the same file: how it begins, and how far it was read.
        self._read: dict[int, tuple[bytes, int]] = {}

    def rows(self) -> Iterator[Row]:
        """Yield what is new since the last call, the oldest first."""
        moved = sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"))
        for path in [*moved, self.path]:
            with suppress(FileNotFoundError), path.open("rb") as file:
                status = os.fstat(file.fileno())
                head, offset = self._read.get(status.st_ino, (b"", 0))
                if file.read(len(head)) != head:  # a new file with the number of a deleted one
                    head, offset = b"", 0
                if status.st_mtime < self.since or status.st_size <= offset:
                    continue
                if not offset:
                    file.seek(0)
                    head = file.read(HEAD_BYTES)
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    try:
                        row = json.loads(line)
                    except ValueError:  # torn where a disk was full
                        _log.warning("%s: a line that is no JSON is passed over", path.name)
                        continue
                    yield row
                self._read[status.st_ino] = head[:offset], offset


def started(row: Row) -> float:
    """Unix time at which a row's request began."""
    return float(row["t"]) - float(row["ms"]) / 1000


def was_tried(row: Row) -> bool:
    """Whether a client's request came to a version: what the gateway refuses itself does not."""
    return int(row["tries"]) > 0


def scores(row: Row) -> dict[str, float]:
    """Probability by head; empty where there was no score."""
    return {head: float(value) for head, value in _pairs(row["scores"])}


def labels(row: Row) -> dict[str, str]:
    """Label by head; empty where there was no score."""
    return {head: unquote(label) for head, label in _pairs(row["labels"])}


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for item in filter(None, text.split(";")):
        name, _, value = item.partition("=")
        yield name, value
