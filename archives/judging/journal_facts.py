"""What a rollout is about, as its entries in the journal say."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archives.judging.guards import Kind
from archives.judging.rollout_policy import Policy
from archives.state import control
from archives.state.journal import Desired, Entry, Journal, Release, fold

ALLOWED = "allowed"
"""Event of the entry by which a person lets an archive be rolled out that was rolled back."""
JUDGED = ("shadow", "canary", "keep")
"""Steps that end when the guards say so: they hold by themselves."""
FOR_ALL = ("default", "drain", "keep")
"""Steps in which the new version answers everybody, and the old one may come back."""


@dataclass(frozen=True)
class Facts:
    """What a rollout is about; its `start` entry in the journal, with later `restart`s."""

    rollout: str
    model: str
    old: Release | None
    """None: the first version ever."""
    new: Release
    heads: tuple[str, ...]
    """Those that both versions have."""
    nodes: Path
    """nodes.yaml"""
    policy: Policy
    began: float
    """Unix time."""
    since: int
    """Its first entry."""

    @property
    def steps(self) -> list[str]:
        """In order; without an old version there is nothing to compare with, or to keep."""
        first = ["verify", "register"]
        if self.old is None:
            return [*first, "default"]
        shares = [f"canary {percent:g} %" for percent in self.policy.canary]
        return [*first, "shadow", *shares, "default", "drain", "keep", "retire"]


def facts_of(entries: Sequence[Entry]) -> Facts | None:
    """Return what the rollout under way is about; None: there is none."""
    found = rollouts(entries)
    return _facts(found[-1]) if found and found[-1][-1].rollout else None


def last_facts(entries: Sequence[Entry]) -> Facts | None:
    """Return what the last rollout is, or was, about; None: there never was one."""
    found = rollouts(entries)
    return _facts(found[-1]) if found else None


def rollouts(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Return the entries of each rollout, the last one of each its end where it has come to it."""
    found: list[list[Entry]] = []
    for entry in entries:
        if entry.event == "start":
            found.append([])
        if found:
            found[-1].append(entry)
    return found


def went_back(entries: Sequence[Entry], new: Release) -> str:
    """Return why the last rollout of the same bytes was rolled back; empty: it was not.

    Also one that the operator aborted: a supervisor that starts the command again after it, by the
    same command, must not repeat what was just rolled back.
    """
    mine = [
        it for it in rollouts(entries) if Release(**it[0].facts["candidate"]).sha256 == new.sha256
    ]
    back = [it for it in mine[-1] if it.event == "rollback"] if mine else []
    if back and any(
        it.event == ALLOWED and it.facts["sha256"] == new.sha256 and it.seq > back[-1].seq
        for it in entries
    ):
        return ""
    return f"{back[-1].facts['guard']}: {back[-1].facts['said']}" if back else ""


def _facts(entries: Sequence[Entry]) -> Facts:
    start = entries[0]
    facts = dict(start.facts)
    for entry in entries[1:]:
        facts |= {key: entry.facts[key] for key in ("policy", "nodes") if key in entry.facts}
    return Facts(
        rollout=str(start.rollout),
        model=facts["model"],
        old=Release(**facts["stable"]) if facts["stable"] else None,
        new=Release(**facts["candidate"]),
        heads=tuple(facts["heads"]),
        nodes=Path(facts["nodes"]),
        policy=Policy.model_validate(facts["policy"]),
        began=start.time,
        since=start.seq,
    )


def named_archives(entries: Sequence[Entry]) -> tuple[set[str], set[str]]:
    """Return the files of all archives that were rolled out here, and of those still needed.

    Needed are what is served, or under way, and what was served before it.
    """
    found = rollouts(entries)
    desired = fold(entries)
    needed = [desired.stable, desired.candidate, *desired.serves]
    done = [it for it in found if any(entry.event == "done" for entry in it)]
    if done and (old := done[-1][0].facts["stable"]):
        needed.append(Release(**old))
    named = {it[0].facts[key]["file"] for it in found for key in ("stable", "candidate")
             if it[0].facts[key]}  # fmt: skip
    return named, {it.file for it in needed if it}


def begin(
    journal: Journal, model: str, new: Release, heads: list[str], nodes: Path, policy: Policy
) -> None:
    """Write the first entry of a rollout of `new`, which lies in the state's `archives`."""
    desired = fold(journal.entries())
    rollout = f"{new.version}-{secrets.token_hex(3)}"
    journal.append(
        "start", rollout=rollout, model=model, stable=desired.stable, candidate=new, salt=rollout,
        serves=list(desired.serves), percent=0.0, shadow_percent=0.0, paused=False, step="verify",
        heads=heads, nodes=str(nodes.resolve()), policy=policy.model_dump(mode="json"),
        by=control.operator(),
    )  # fmt: skip


def step_entry(entries: list[Entry]) -> Entry:
    """The entry that began the present step."""
    return next(entry for entry in reversed(entries) if "step" in entry.facts)


def kind_of(desired: Desired) -> Kind | None:
    """How the present step is judged; None: it is not."""
    if desired.step == "shadow":
        return "shadow"
    if desired.step.startswith("canary"):
        return "canary" if desired.percent < 100 else "alone"
    return "alone" if desired.step in FOR_ALL else None


def judged_since(entries: Sequence[Entry], step: Entry) -> int:
    """Entry from which on requests are judged in a step: the last one by `step` that split traffic.

    `keep` so answers for what came since the default changed, too: `default` and `drain` are judged
    though no time is spent in them.
    """
    return fold(entries[: step.seq]).split
