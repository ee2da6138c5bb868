"""A reader study: an image is judged before its scores are shown, and again with them.

`Study` knows how far each case is, from the record, so that no restart shows a score early or asks
twice. A case is an image with its box: the box of a run's row, or the one that the reader drew for
the first reading; then it is fixed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sonode.console import UserError

Stage = Literal["before", "after"]
DONE = "done"
SEEN = "seen"  # the record says that this reader has judged the image's score outside the study


class Key(NamedTuple):
    """What tells a case from others."""

    image: str
    """SHA-256 of its bytes."""
    frame: int
    roi: tuple[int, ...]


def key_in(line: Mapping[str, Any]) -> Key:
    """The case that a line of the record is of."""
    roi = (line[f"roi_{name}"] for name in ("x_min", "y_min", "x_max", "y_max"))
    return Key(line["image_sha256"], line["frame"], tuple(roi))


@dataclass
class Case:
    """How far one is."""

    order: int
    """1 for the first that this reader has judged; 0 of a case that is not asked."""
    stage: str
    """What is asked next: `after`; or `done` or `seen`, of which nothing is asked."""
    since: float | None = None
    """When its scores were first shown."""


class Study:
    """The cases of one reader."""

    def __init__(self, whose: Mapping[str, str | None], heads: Collection[str]) -> None:
        """`whose`: the columns that name the reader. `heads`: those that a reading answers."""
        self._whose, self._heads = whose, {*heads}
        self._cases: dict[Key, Case] = {}
        self._readings: dict[tuple[Key, str], set[str]] = {}  # their heads
        self._odd: dict[tuple[Key, str], int] = {}  # those with other heads; their first line
        self._opened: dict[str, float] = {}
        self._of_rows: set[Key] = set()
        self.only_rows = False
        """Whether the cases are those of a run's rows: their frame and box, and no other."""

    def catch_up(self, lines: Mapping[int, Mapping[str, Any]]) -> None:
        """Take the cases from new `lines` of the record, by number: another process may add some.

        Raises UserError for a reading that lacks heads, or has others.
        """
        for number, line in lines.items():
            if any(line[name] != its for name, its in self._whose.items()):
                continue
            key, stage = key_in(line), line["stage"]
            case = self._cases.setdefault(key, Case(0, SEEN))
            if stage is None:
                continue
            self._readings.setdefault((key, stage), set()).add(line["head"])
            self._odd.setdefault((key, stage), number)
            case.order = line["order"]
            case.stage = DONE if stage == "after" or case.stage == DONE else "after"
        self._odd = {it: at for it, at in self._odd.items() if self._readings[it] != self._heads}
        for reading, number in self._odd.items():  # at every call, until the reader starts again
            raise UserError(
                f"--record: the reading of line {number} has the heads "
                f"{', '.join(sorted(self._readings[reading]))}, not those of the study: "
                f"{', '.join(sorted(self._heads))}; take its lines out, or give another file"
            )

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

    def why_hidden(self, key: Key, source: int) -> str | None:
        """Why the scores of this box are not shown; None where they are. The first source is."""
        if source:
            return "in a study one model is shown; reload the page"
        if self.stage(key) == "before" or self._of_no_row(key):
            return "in a study a score comes after the first reading, of its box and frame alone"
        return None

    def _of_no_row(self, key: Key) -> bool:
        return self.only_rows and key not in self._of_rows

    def why_not(self, stage: Stage, key: Key) -> str | None:
        """Why this reading is not taken; None where it is."""
        if self._of_no_row(key):
            return "this is not the frame and the box of a row; open the row again"
        if stage == "after":
            reached = self.stage(key) == "after" and self._cases[key].since is not None
            return None if reached else "the second reading comes once, after the first one"
        if self.stage(key) == SEEN:
            return "you have judged the score of this image outside the study"
        if self.stage(key) != "before":
            return "the first reading of this image is recorded already"
        known = any(it.image == key.image for it in self._cases) and key not in self._of_rows
        return "this image was read with another box; open it again" if known else None

    def time_of(self, stage: Stage, key: Key) -> dict[str, Any]:
        """`order` of the case, and `seconds` since it was opened or its scores were shown."""
        if stage == "before":
            order, since = self._next(), self._opened.get(key.image)
        else:
            order, since = self._cases[key].order, self._cases[key].since
        return {
            "order": order,
            "seconds": None if since is None else round(time.monotonic() - since, 1),
        }

    def read(self, stage: Stage, key: Key) -> None:
        """The reading is on the disk."""
        if stage == "before":
            self._cases[key] = Case(self._next(), "after")
        else:
            self._cases[key].stage = DONE

    def _next(self) -> int:
        return 1 + max((case.order for case in self._cases.values()), default=0)
