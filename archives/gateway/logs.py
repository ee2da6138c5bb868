"""What the gateway logs: a row per client's request, one per attempt at a node, and its state."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from heapq import merge
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

_log = logging.getLogger(__name__)

LogRow = dict[str, Any]


OWN_CODES = frozenset(
    {
        *("", "bad_request", "unauthorized", "not_found", "method_not_allowed", "too_slow"),
        *("request_too_large", "unsupported_encoding", "too_many_requests", "client_left"),
        *("gateway_failed", "node_unreachable", "unavailable", "node_too_slow"),
    }
)
"""`code` where no handler has answered; nginx_maps.conf.j2 has the same value."""
BUSY = "busy"
"""`code` of what would not fit a node's queue, or the budget of what is mirrored."""
LINE_BYTES = 65_536  # more than any line has
SET_BACK_S = 1.0  # nginx's workers write one log: their rows differ by less


def last_applied(state: Path) -> dict[str, Any]:
    """Give `seq`, the last entry of the journal that it has applied, and `nodes`: "up", or why not.

    Empty where it has written nothing yet, or a power cut has left nothing of it.
    """
    try:
        found = json.loads((state / "gateway" / "applied.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class LogTail:
    """The rows of a log, as they come; a line that is being written waits for its end.

    The gateway moves a log aside when it has grown (`attempts-TIME.jsonl`): those are read, too,
    unless all in them is of entries of the journal before `since`. A file is known by its first
    line, whose request id is random: names, inodes and clocks come again.
    """

    def __init__(self, path: Path, since: int = 0) -> None:
        self.path, self.since = path, since
        self._offsets: dict[bytes, int] = {}
        self._earlier: set[Path] = set()

    def skip(self) -> None:
        """Leave out what is there, which may be gigabytes."""
        self._earlier = self._moved()
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            name = file.readline()
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LINE_BYTES))
            self._offsets[name] = size - len(file.read().rpartition(b"\n")[2])

    def rows(self) -> Iterator[LogRow]:
        """Yield what is new since the last call, the oldest first."""
        for path in [*sorted(self._moved() - self._earlier), self.path]:
            with suppress(FileNotFoundError), path.open("rb") as file:
                name = file.readline()
                if not name.endswith(b"\n"):
                    continue
                if path != self.path and name not in self._offsets and self._is_earlier(file):
                    self._earlier.add(path)
                    continue
                offset = self._offsets.get(name, 0)
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    try:
                        row = json.loads(line)
                    except ValueError:  # torn where a disk was full
                        _log.warning("%s: skipped a line that is not JSON", path.name)
                        continue
                    yield row
                self._offsets[name] = offset

    def _moved(self) -> set[Path]:
        return set(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"))

    def _is_earlier(self, file: IO[bytes]) -> bool:
        """Whether its last lines, and so all of it, are of entries before `since`.

        The very last one does not show it: a process of nginx that ends with its configuration logs
        what it had under way after the new one's first requests.
        """
        file.seek(max(0, os.fstat(file.fileno()).st_size - LINE_BYTES))
        lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines[1:] if line.endswith(b"\n")]
        try:
            return max(seq(json.loads(line)) for line in whole) < self.since
        except ValueError:  # none, or a torn one
            return False


class Logs:
    """The rows of both logs of a state folder in the order in which they came.

    What belongs together, as the halves of a mirrored request, lies in both, and guards wait for
    the other half for some minutes only: a long log of one must not be read before the other.
    """

    def __init__(self, state: Path, since: int = 0) -> None:
        folder = state / "gateway"
        self._attempts = LogTail(folder / "attempts.jsonl", since)
        self._requests = LogTail(folder / "requests.jsonl", since)

    def rows(self) -> Iterator[tuple[bool, LogRow]]:
        """Yield what is new since the last call; with each row whether it is an attempt's."""
        both = merge(
            ((t, True, row) for t, row in _onwards(self._attempts.rows())),
            ((t, False, row) for t, row in _onwards(self._requests.rows())),
            key=lambda it: it[0],
        )
        return ((is_attempt, row) for _, is_attempt, row in both)


def _onwards(rows: Iterator[LogRow]) -> Iterator[tuple[float, LogRow]]:
    """With each row a time that goes on where the clock was set back."""
    lost, latest = 0.0, -math.inf
    for row in rows:
        t = float(row["t"]) + lost
        if t < latest - SET_BACK_S:
            lost += latest - t
            t = latest
        latest = max(latest, t)
        yield t, row


def seq(row: LogRow) -> int:
    """The entry of the journal whose split of the traffic a row was answered under."""
    return int(row["seq"])


def was_tried(row: LogRow) -> bool:
    """Whether a client's request came to a version: what the gateway refuses itself does not."""
    return int(row["tries"]) > 0


def is_load(row: LogRow) -> bool:
    """Whether it was refused, or not mirrored, because of overload: not a version's fault."""
    return bool(row["code"] == BUSY)


def waited_ms(row: LogRow) -> float:
    """How long nodes took for a client's request, all tries together.

    What the client takes for its body, or to close its connection, is not in it.
    """
    parts = re.findall(r"\d+\.\d+", str(row.get("waited", "")))
    return 1000 * sum(map(float, parts)) if parts else float(row["ms"])


def failed_tries(row: LogRow) -> int:
    """How many of the tries of a client's request at nodes ended with a 5xx."""
    tries = re.findall(r"\d{3}", str(row.get("statuses", "")))
    return sum(int(status) >= 500 for status in tries) if tries else int(row["status"] >= 500)


def is_signed_failure(row: LogRow) -> bool:
    """Whether a handler reports its own failure; else a worker or a node is missing."""
    return int(row["status"]) >= 500 and row["code"] not in OWN_CODES


def other_fails_too(row: LogRow) -> bool:
    """Whether the other version, asked what this one had failed, has failed it as well."""
    return int(row.get("replay") or 0) >= 500


def scores(row: LogRow) -> dict[str, float]:
    """Probability by head; empty where there was no score."""
    return {head: float(value) for head, value in _pairs(row["scores"])}


def labels(row: LogRow) -> dict[str, str]:
    """Label by head; empty where there was no score."""
    return {head: unquote(label) for head, label in _pairs(row["labels"])}


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for item in filter(None, text.split(";")):
        name, _, value = item.partition("=")
        yield name, value
