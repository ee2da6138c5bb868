"""A step of a rollout as the gateway's logs show it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from archives.gateway.logs import Logs, LogTail, seq, was_tried
from archives.judging.guards import Kind, Watch
from archives.judging.journal_facts import Facts, judged_since
from archives.judging.verdicts import Verdict
from archives.state.journal import Entry, Journal, fold


def watch_of(entries: Sequence[Entry], facts: Facts, kind: Kind, step: Entry) -> Watch:
    """The guards of a step, which have seen nothing yet; `step` is its entry in the journal."""
    return Watch(
        facts.policy,
        kind,
        old=facts.old.version if facts.old else None,
        new=facts.new.version,
        heads=facts.heads,
        since=judged_since(entries, step),
        percent=fold(entries[: step.seq]).percent,
    )


class StepView:
    """What the gateway's logs say about one step; `step` is its entry in the journal."""

    def __init__(self, state: Path, facts: Facts, kind: Kind, step: Entry) -> None:
        self.watch = watch_of(Journal(state).entries(), facts, kind, step)
        self._logs = Logs(state, self.watch.since)

    def verdicts(self) -> list[Verdict]:
        """What the guards say now."""
        for is_attempt, row in self._logs.rows():
            (self.watch.add_attempt if is_attempt else self.watch.add_request)(row)
        return self.watch.verdicts()

    def lacking(self, verdicts: list[Verdict]) -> str:
        """Why it cannot be judged good yet; empty: it can."""
        least = self.watch.policy
        if self.watch.answered < least.min_requests:
            return f"too few requests to judge: fewer than {least.min_requests} answered"
        if self.watch.studies < least.min_studies:
            return f"too few studies to judge: fewer than {least.min_studies}"
        held = [str(verdict) for verdict in verdicts if verdict.state == "hold"]
        return f"not clear yet: {held[0]}" if held else ""


def answered_by(state: Path, version: str, since: int) -> int:
    """How many requests of clients a version has answered, well or not, from entry `since` on."""
    rows = LogTail(state / "gateway" / "requests.jsonl", since).rows()
    return sum(row["version"] == version and seq(row) >= since and was_tried(row) for row in rows)
