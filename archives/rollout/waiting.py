"""What a rollout waits for, and what the operator asks meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from archives.judging.facts import JUDGED, facts_of, step_entry
from archives.rollout import nodes as rollout_nodes
from archives.rollout.nodes import Refused
from archives.state import control
from archives.state.journal import Desired, Journal, fold
from sonode.console import UserError, say

T = TypeVar("T")

PATIENCE_S = 10.0  # then it is said what is being waited for
GIVE_UP_S = 600.0  # then it is a fault: somebody has to see to it
BACK = ("rollback", "withdraw")
TOO_LATE = (*BACK, "retire")
"""Steps in which nothing can be asked any more: the version that goes is being unregistered."""


class Waiting:
    """A rollout under way that heeds the operator, whatever it waits for."""

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
        """Stay while paused, after a step that does not wait for guards; what to tell of it."""
        desired = self.desired()
        # One that does holds by itself, and goes on in spite of a pause by `promote` only.
        if desired.step.split()[0] in JUDGED or desired.step in TOO_LATE:
            return {}
        while (word := self._control()) != "promote" and self.desired().paused:
            time.sleep(0.05)
        return self._by_hand() if word == "promote" else {}

    def _by_hand(self, why: str = "") -> dict[str, Any]:
        return {"why": "by hand" + why, "by": self._promoted_by, "paused": False}

    def _control(self) -> str | None:
        """Heed a word of the operator. Raises Refused for `abort`; returns `promote`."""
        desired = self.desired()
        step = step_entry(self.journal.entries())
        asked = control.asked(self.state, step.seq)
        if desired.step in TOO_LATE or asked is None:
            return None
        word = asked.word
        if word == "abort":
            raise Refused("abort", "asked for by the operator", by=asked.by)
        if word in ("pause", "resume"):
            if desired.paused != (word == "pause"):
                self.journal.append(
                    word, rollout=self.facts.rollout, paused=word == "pause", why="by hand",
                    by=asked.by,
                )  # fmt: skip
                self._tell("paused: guards go on, no step does" if word == "pause" else "resumed")
            control.clear(self.state)
            return None
        self._promoted_by = asked.by
        return word

    def _beside(self, act: Callable[[], T]) -> T:
        """Do something that takes long, and heed the operator meanwhile."""
        with ThreadPoolExecutor(1) as pool:  # which waits for its end, also after `abort`
            future = pool.submit(act)
            while not future.done():
                self._control()
                time.sleep(0.05)
            return future.result()

    def _wait_applied(self) -> None:
        seq = step_entry(self.journal.entries()).seq
        self._wait(
            lambda: rollout_nodes.applied(self.state) >= seq,
            f"the gateway (--state {self.state}) to take entry {seq}: see that it runs",
        )

    def _wait(self, until: Callable[[], bool], what: str) -> None:
        began, told = time.monotonic(), False
        while True:
            self._control()  # also where there is nothing to wait for
            if until():
                return
            self._give_up(began, what)
            if not told and time.monotonic() - began > PATIENCE_S:
                told = True
                self._tell(f"waiting for {what}")
            time.sleep(0.05)

    def _give_up(self, began: float, what: str) -> None:
        """Raise UserError where it was waited for too long; `began` is of the monotonic clock."""
        if time.monotonic() - began > GIVE_UP_S:
            raise UserError(f"waited {GIVE_UP_S:g} s for {what}")

    def _tell(self, text: str) -> None:
        say(f"{time.strftime('%H:%M:%S')}  {text}")
