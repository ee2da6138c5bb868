"""Where a rollout stands, from outside: the journal, what the gateway has applied, its logs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from archives.gateway.logs import last_applied
from archives.judging.journal_facts import facts_of, kind_of, step_entry
from archives.judging.step_log import StepView
from archives.judging.verdicts import Verdict
from archives.state import clock
from archives.state.journal import Desired, Journal, fold


@dataclass(frozen=True)
class Status:
    """A look at it."""

    desired: Desired
    running: bool
    """Whether a rollout command runs."""
    took: float | None
    """Seconds since the present step began; None: no rollout is under way."""
    applied: int
    """The last entry that the gateway has taken."""
    nodes: dict[str, str]
    """The gateway's view of each node: `up`, or why it is not."""
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
        return "" if self.took is None else f", for {self.took:.0f} s"

    def command(self) -> str:
        """Whether a rollout command runs, which the guards need."""
        if self.running:
            return "running"
        if self.took is None:
            return "not running"
        return "not running: NOT MONITORED, re-run `sonode rollout start`"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def status(state: Path) -> Status:
    """Look at the rollout of a state folder, and judge its step as the rollout command does."""
    journal = Journal(state)
    entries = journal.entries()
    desired, facts = fold(entries), facts_of(entries)
    gateway = last_applied(state)
    answered, verdicts = 0, []
    kind = kind_of(desired)
    if facts and kind:
        view = StepView(state, facts, kind, step_entry(entries))
        verdicts = view.verdicts()
        answered = view.watch.answered
    return Status(
        desired=desired,
        running=journal.is_locked(),
        took=clock.elapsed(step_entry(entries)) if facts else None,
        applied=gateway.get("seq", 0),
        nodes=gateway.get("nodes", {}),
        answered=answered,
        verdicts=verdicts,
    )
