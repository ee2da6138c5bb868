"""The gateway's own span of each request that a node was asked, made from the line in its log."""

from __future__ import annotations

from pathlib import Path

from archives.gateway.logs import LogRow, LogTail, was_tried
from sonode.traces import Traces, place_of

SPAN = 16  # digits of a request's id that are its span's id, as in nginx_maps.conf.j2


class _Ids:
    """Gives the ids that nginx has told the node."""

    request = ""

    def generate_trace_id(self) -> int:
        return int(self.request, 16)

    def generate_span_id(self) -> int:
        return int(self.request[:SPAN], 16)

    def is_trace_id_random(self) -> bool:
        return True


class Spans:
    """Sends those of requests that end from now on."""

    def __init__(self, state: Path) -> None:
        self._tail = LogTail(state / "gateway" / "requests.jsonl")
        self._tail.skip()
        self._ids = _Ids()
        self._traces = Traces("sonode-gateway", self._ids)

    def send(self) -> None:
        """Send what is new in the log."""
        for row in filter(was_tried, self._tail.rows()):
            self._ids.request = row["id"]
            parent = place_of(row["parent"])
            seconds = row["t"] - row["ms"] / 1000, row["t"]
            failed = row["status"] >= 500
            self._traces.add("gateway", parent, seconds, _facts(row), failed=failed)

    def close(self) -> None:
        """Send the last ones."""
        self.send()
        self._traces.close()


def _facts(row: LogRow) -> dict[str, str | int]:
    return {
        "http.response.status_code": row["status"],
        "sonode.version": row["version"],
        "sonode.tries": row["tries"],
    }
