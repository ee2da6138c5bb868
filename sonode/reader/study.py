"""A reader study: an image is judged before its scores are shown, and again with them.

`Study` knows how far each case is, from the record, so that no restart shows a score early or asks
twice. A case is an image with its box: the box of a run's row, or the one that the reader drew for
the first reading; then it is fixed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Stage = Literal["before", "after"]
DONE = "done"


class Key(NamedTuple):
    """What tells a case from others."""

    image: str
    """SHA-256 of its bytes."""
    frame: int
    roi: tuple[int, ...]


@dataclass
class Case:
    """How far one is."""

    order: int
    """1 for the first that this reader has judged."""
    stage: str
    """What is asked next: `after`, or `done`."""
    since: float | None = None
    """When its scores were first shown."""


class Study:
    """The cases of one reader."""

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """`lines`: what the record has of this reader."""
        self._cases: dict[Key, Case] = {}
        self._opened: dict[str, float] = {}
        self._of_rows: set[Key] = set()
        for line in lines:
            roi = (line[f"roi_{name}"] for name in ("x_min", "y_min", "x_max", "y_max"))
            key = Key(line["image_sha256"], line["frame"], tuple(roi))
            if line["stage"] is not None:
                case = self._cases.setdefault(key, Case(line["order"], "after"))
                case.stage = DONE if line["stage"] == "after" else case.stage

    def opened(self, image: str, frame: int, roi: list[int] | None = None) -> dict[str, Any]:
        """What the page is told of an image, and the time starts; `roi` is of a row that has one.

        `roi` and `frame` of the answer are null where the reader is to choose them.
        """
        self._opened[image] = time.monotonic()
        if roi is not None:
            self._of_rows.add(key := Key(image, frame, tuple(roi)))
            return self.facts(key)
        drawn = next((key for key in self._cases if key.image == image), None)
        if drawn is None:
            return {"stage": "before", "frame": None, "roi": None}
        return self.facts(drawn)

    def facts(self, key: Key) -> dict[str, Any]:
        """What the page is told of a case."""
        return {"stage": self.stage(key), "frame": key.frame, "roi": [*key.roi]}

    def stage(self, key: Key) -> str:
        """`before`, `after` or `done`."""
        case = self._cases.get(key)
        return "before" if case is None else case.stage

    def shown(self, key: Key) -> None:
        """The scores of the case go to the page."""
        case = self._cases[key]
        case.since = case.since or time.monotonic()

    def why_not(self, stage: Stage, key: Key) -> str | None:
        """Why this reading is not taken; None where it is."""
        if stage == "after":
            reached = self.stage(key) == "after" and self._cases[key].since is not None
            return None if reached else "the second reading comes once, after the first one"
        if self.stage(key) != "before":
            return "the first reading of this image is recorded already"
        known = any(it.image == key.image for it in self._cases) and key not in self._of_rows
        return "this image was read with another box; open it again" if known else None

    def time_of(self, stage: Stage, key: Key) -> dict[str, Any]:
        """`order` of the case, and `seconds` since it was opened or its scores were shown."""
        if stage == "before":
            order, since = len(self._cases) + 1, self._opened.get(key.image)
        else:
            order, since = self._cases[key].order, self._cases[key].since
        return {
            "order": order,
            "seconds": None if since is None else round(time.monotonic() - since, 1),
        }

    def read(self, stage: Stage, key: Key) -> None:
        """The reading is on the disk."""
        if stage == "before":
            self._cases[key] = Case(len(self._cases) + 1, "after")
        else:
            self._cases[key].stage = DONE
