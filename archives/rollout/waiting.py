"""What a rollout waits for, and the operator's commands meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from archives.judging.journal_facts import JUDGED, facts_of, step_entry
from archives.rollout import nodes
from archives.rollout.nodes import Refused
from archives.state import control
from archives.state.journal import Desired, Journal, fold
from sonode.console import UserError, say

T = TypeVar("T")

PATIENCE_S = 10.0  # then a line says what it waits for
GIVE_UP_S = 600.0  # then it is a fault that somebody has to fix
BACK = ("rollback", "withdraw")
TOO_LATE = (*BACK, "retire")
"""Steps that take no command: the version that goes is being unregistered."""


class Waiting:
    """A rollout under way that obeys the operator, whatever it waits for."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.state = journal.state
        facts = facts_of(journal.entries())
        assert facts, "a rollout is under way"
        self.facts = facts
        self._promoted_by = ""

    def desired(self) -> Desired:
        """What the journal says by now."""
        return fold(self.journal.entries())

    def _held(self) -> dict[str, Any]:
        """Stay while paused, after a step that does not wait for guards; facts for the journal."""
        desired = self.desired()
        # A step with guards pauses by itself; during a pause, only `promote` ends it.
        if desired.step.split()[0] in JUDGED or desired.step in TOO_LATE:
            return {}
        while (word := self._control()) != "promote" and self.desired().paused:
            time.sleep(0.05)
        return self._by_hand() if word == "promote" else {}

    def _by_hand(self, why: str = "") -> dict[str, Any]:
        return {"why": "by hand" + why, "by": self._promoted_by, "paused": False}

    def _control(self) -> str | None:
        """Obey the operator's command. Raises Refused for `abort`; returns `promote`."""
        desired = self.desired()
        step = step_entry(self.journal.entries())
        asked = control.asked(self.state, step.seq)
        if desired.step in TOO_LATE or asked is None:
            return None
        word = asked.word
        if word == "abort":
            raise Refused("abort", "by the operator", by=asked.by)
        if word in ("pause", "resume"):
            if desired.paused != (word == "pause"):
                self.journal.append(
                    word, rollout=self.facts.rollout, paused=word == "pause", why="by hand",
                    by=asked.by,
                )  # fmt: skip
                self._report("paused; guards stay active" if word == "pause" else "resumed")
            control.done(self.state, asked)
            return None
        self._promoted_by = asked.by
        return word

    def _beside(self, act: Callable[[], T]) -> T:
        """Do something that takes long, and obey the operator meanwhile."""
        with ThreadPoolExecutor(1) as pool:  # which waits for its end, also after `abort`
            future = pool.submit(act)
            while not future.done():
                try:
                    self._control()
                except Refused:
                    self._report("abort: it waits for what is being done now")
                    raise
                time.sleep(0.05)
            return future.result()

    def _wait_applied(self) -> None:
        seq = step_entry(self.journal.entries()).seq
        self._wait(
            lambda: nodes.applied(self.state) >= seq,
            f"the gateway of --state {self.state} to apply entry {seq}: check that it runs",
        )

    def _wait(self, until: Callable[[], bool], what: str) -> None:
        began, reported = time.monotonic(), False
        while True:
            self._control()  # also where there is nothing to wait for
            if until():
                return
            self._give_up(began, what)
            if not reported and time.monotonic() - began > PATIENCE_S:
                reported = True
                self._report(f"waiting for {what}")
            time.sleep(0.05)

    def _give_up(self, began: float, what: str) -> None:
        """Raise UserError where it was waited for too long; `began` is of the monotonic clock."""
        if time.monotonic() - began > GIVE_UP_S:
            raise UserError(f"waited {GIVE_UP_S:g} s for {what}")

    def _report(self, text: str) -> None:
        say(f"{time.strftime('%H:%M:%S')}  {text}")
