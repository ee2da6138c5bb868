"""Requests that both versions get: what is known of each is put together."""

from __future__ import annotations

from typing import Literal, NamedTuple

from archives.gateway import logs
from archives.gateway.logs import LogRow

FORGET_S = 300.0
"""A mirrored request whose other half has not come by then has none."""
Half = Literal["request", "new", "old"]
"""A line of requests.jsonl, or an attempt of either version."""


class Answers(NamedTuple):
    """Of both versions to one request."""

    new: LogRow
    old: LogRow


class Mirrored:
    """Requests whose halves have not all come yet."""

    def __init__(self) -> None:
        self.not_mirrored = 0
        """Requests of which the new version was not asked, since too much was under way."""
        self._known: dict[str, dict[str, LogRow]] = {}

    def take(self, half: Half, row: LogRow) -> Answers | None:
        """Take a half; the answers of both, where it was the last. Of the old one, its last try."""
        id_ = row["id"]
        found = self._known.setdefault(id_, {})
        found[half] = row
        oldest, its = next(iter(self._known.items()))
        if oldest != id_ and abs(next(iter(its.values()))["t"] - row["t"]) > FORGET_S:
            del self._known[oldest]
        new, old, request = (found.get(it) for it in ("new", "old", "request"))
        if new is None:
            return None
        answers = None
        if logs.is_load(new):
            self.not_mirrored += half == "new"
        elif old is None or (old["status"] >= 500 and request is None):
            return None  # another try may follow
        elif not logs.is_load(old) and old["status"] != 499:
            answers = Answers(new, old)
        del self._known[id_]
        return answers
