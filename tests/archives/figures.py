"""What a test has measured, for the table of `make rollouts`; see `rollout_table.py`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Figures:
    """Of one test."""

    sent: int = 0
    unanswered: int = 0
    """Requests of good clients that no node answered, or that ended with an error."""
    seconds: float | None = None
    """The longest time from a fault, or from the word of a guard, until all is well again."""
    notes: list[str] = field(default_factory=list)
    """What else the test measures."""

    def requests(self, sent: int, unanswered: int) -> None:
        self.sent += sent
        self.unanswered += unanswered

    def recovered(self, seconds: float) -> None:
        self.seconds = max(seconds, self.seconds or 0.0)

    def add(self, other: Figures) -> None:
        self.requests(other.sent, other.unanswered)
        if other.seconds is not None:
            self.recovered(other.seconds)
        self.notes += other.notes


_running = [Figures()]
"""Of the test that runs; a new one for each where the table is made."""


def begin() -> None:
    _running[0] = Figures()


def running() -> Figures:
    return _running[0]


def requests(sent: int, unanswered: int) -> None:
    running().requests(sent, unanswered)


def recovered(seconds: float) -> None:
    running().recovered(seconds)


def note(text: str) -> None:
    running().notes.append(text)
