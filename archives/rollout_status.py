"""Where a rollout stands, found out from outside: the journal, the gateway's word, its logs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from archives import gateway_logs
from archives.guards import Verdict
from archives.journal import Desired, Journal, fold
from archives.rollout_facts import facts_of, kind_of, step_entry
from archives.rollout_view import StepView


@dataclass(frozen=True)
class Status:
    """A look at it."""

    desired: Desired
    running: bool
    """Whether a rollout command runs."""
    began: float | None
    """The present step, in Unix time; None: no rollout is under way."""
    applied: int
    """The last entry that the gateway has taken."""
    nodes: dict[str, str]
    """What the gateway says of each node: `up`, or why it is not."""
    answered: int
    verdicts: list[Verdict]

    def versions(self) -> str:
        """Who answers whom, in words."""
        desired = self.desired
        stable = desired.stable.version if desired.stable else "nothing"
        if desired.candidate is None:
            return f"{stable} for all"
        new = desired.candidate.version
        if desired.shadow_percent:
            return f"{stable} for all; {new} in the shadow ({desired.shadow_percent:g} %)"
        return f"{new} for {desired.percent:g} % of studies, else {stable}"

    def since(self) -> str:
        """How long the step has taken."""
        return f", for {time.time() - self.began:.0f} s" if self.began else ""

    def command(self) -> str:
        """Whether somebody watches."""
        if self.running:
            return "runs"
        return "none runs: NOBODY WATCHES, start it again" if self.began else "none runs"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def status(state: Path) -> Status:
    """Look at the rollout of a state folder, and judge its step as the rollout command does."""
    journal = Journal(state)
    entries = journal.entries()
    desired, facts = fold(entries), facts_of(entries)
    told = gateway_logs.told(state)
    answered, verdicts = 0, []
    kind = kind_of(desired)
    if facts and kind:
        view = StepView(state, facts, kind, step_entry(entries))
        verdicts = view.verdicts()
        answered = view.watch.answered
    return Status(
        desired=desired,
        running=journal.is_locked(),
        began=step_entry(entries).time if facts else None,
        applied=told.get("seq", 0),
        nodes=told.get("nodes", {}),
        answered=answered,
        verdicts=verdicts,
    )
