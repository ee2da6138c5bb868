"""What is checked before a rollout begins or resumes: all of it before the first entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from archives.judging.journal_facts import ALLOWED, begin, facts_of, rollouts, went_back
from archives.judging.rollout_policy import Policy
from archives.nodes import owner
from archives.nodes.nodes_file import read_nodes
from archives.nodes.stores import copy_whole
from archives.packing.members import file_sha256, read_members
from archives.rollout.steps import Rollout
from archives.rollout.traffic_permit import retry_while_full, take_back
from archives.rollout.waiting import BACK
from archives.state import control
from archives.state.files import make_folder
from archives.state.journal import Entry, Journal, Release, fold
from sonode.console import UserError, say
from sonode.files.atomic import FULL


class Halted(Exception):  # noqa: N818 - reads as what it is
    """A fault in the middle of a rollout, for example a full disk: no guard watches it any more."""


def start(
    archive: Path,
    nodes: Path,
    policy: Policy | None,
    state: Path,
    *,
    step_by_step: bool,
) -> bool:
    """Begin a rollout of the archive, or go on with it; True: it serves, False: rolled back.

    `policy`: None is the defaults, or what the rollout that it goes on with began with. Raises
    UserError for an archive that cannot be rolled out here, or was rolled back here and not allowed
    since, and where a rollout runs; Halted for a fault once it is under way, and a full disk.
    """
    try:
        return _start(archive, nodes, policy, state, step_by_step=step_by_step)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise Halted(f"{error}: free disk space, then re-run the same command") from error


def _start(
    archive: Path, nodes: Path, policy: Policy | None, state: Path, *, step_by_step: bool
) -> bool:
    manifest, card = read_members(archive)
    for node in read_nodes(nodes):
        if whose := owner.other(node.run_dir, state):
            raise UserError(
                f"--nodes {nodes}: {node.name} belongs to the gateway of {whose}: give that "
                "--state, or stop that gateway"
            )
    model, version = (str(manifest["model"][key]) for key in ("modelName", "modelVersion"))
    new = Release(version, f"{model}-{version}.mar", file_sha256(archive))
    journal = Journal(state)
    with journal.lock():
        entries = journal.entries()
        desired, facts = fold(entries), facts_of(entries)
        if facts:
            if facts.new != new:
                raise UserError(
                    f"NEW {archive.name}: the rollout of {facts.new.version} has not ended (step "
                    f"{desired.step}); start that archive to resume, or run "
                    f"`sonode rollout abort --state {state}`"
                )
            policy = policy or facts.policy
            steps = [*replace(facts, policy=policy).steps, *BACK]
            if desired.step not in steps:
                raise UserError(
                    f"--policy: canary has no step {desired.step!r}, where the rollout of "
                    f"{facts.new.version} is; keep that step in it, or leave --policy out"
                )
            # A pause stays: who starts it again may be a supervisor of processes.
            entry = partial(
                journal.append, "restart", rollout=facts.rollout, nodes=str(nodes.resolve()),
                policy=policy.model_dump(mode="json"), by=control.operator(),
            )  # fmt: skip
            retry_while_full(state, entry, say)
            paused = ", paused; continue with `sonode rollout resume`" if desired.paused else ""
            say(f"resuming {facts.rollout} at {desired.step}{paused}")
        else:
            _check(archive, model, new, desired.model, desired.stable)
            _check_bytes(archive, new, entries)
            if why := went_back(entries, new):
                raise UserError(
                    f"NEW {archive.name}: was rolled back here ({why}); fix it and give it a new "
                    "version, or run `sonode rollout allow` to try this one again"
                )
            _keep_copy(archive, state / "archives" / new.file, new.sha256)
            heads = [head["name"] for head in card["heads"]]
            if desired.stable:
                _, old_card = read_members(state / "archives" / desired.stable.file)
                before = {head["name"] for head in old_card["heads"]}
                heads = [head for head in heads if head in before]
            control.begin(state)
            begin(journal, model, new, heads, nodes, policy or Policy())
            say(f"{model} {desired.stable.version if desired.stable else 'nothing'} -> {version}")
        return go_on(journal, step_by_step=step_by_step)


def go_on(journal: Journal, *, step_by_step: bool = False) -> bool:
    """Go on with the rollout under way; in `journal.lock()`. Raises Halted for a fault."""
    try:
        return Rollout(journal, step_by_step=step_by_step).run()
    except (UserError, OSError) as error:
        take_back(journal.state)  # no guard judges it from here on
        raise Halted(f"{error}; re-run the same command to resume") from error


def allow(archive: Path, reason: str, state: Path) -> None:
    """Write that the archive may be rolled out again, and why.

    Raises UserError for one that was not rolled back here, or without a reason.
    """
    if not reason.strip():
        raise UserError("--reason: is empty; give the reason to try it again")
    manifest, _ = read_members(archive)
    version, digest = str(manifest["model"]["modelVersion"]), file_sha256(archive)
    journal = Journal(state)
    with journal.lock():
        entries = journal.entries()
        release = Release(version, archive.name, digest)
        if not (why := went_back(entries, release)):
            raise UserError(f"ARCHIVE {archive.name}: was not rolled back here; nothing to allow")
        under_way = fold(entries).rollout
        journal.append(
            ALLOWED, rollout=under_way, version=version, sha256=digest, reason=reason.strip(),
            after=why, by=control.operator(),
        )  # fmt: skip


def _check(
    archive: Path, model: str, new: Release, serving: str | None, stable: Release | None
) -> None:
    if serving not in (None, model):
        raise UserError(
            f"NEW {archive.name}: its model is {model}, but {serving} is served here; give an "
            f"archive of {serving}, or another --state (and gateway)"
        )
    if stable and stable.version == new.version:
        same = stable.sha256 == new.sha256
        raise UserError(
            f"NEW {archive.name}: version {new.version} "
            + ("is served already" if same else "is served with other content; give a new version")
        )


def _check_bytes(archive: Path, new: Release, entries: Sequence[Entry]) -> None:
    """Also of a version whose archive is no longer here."""
    for mine in rollouts(entries):
        other = Release(**mine[0].facts["candidate"])
        if other.version == new.version and other.sha256 != new.sha256:
            raise UserError(
                f"NEW {archive.name}: another archive of version {new.version} was rolled out "
                "here; give a new version"
            )


def _keep_copy(archive: Path, target: Path, sha256: str) -> None:
    """Copy the archive to where nodes get it from, atomically."""
    if target.exists():
        if file_sha256(target) != sha256:
            raise UserError(
                f"NEW {archive.name}: {target} is another archive of that version; give a new "
                "version"
            )
        return
    make_folder(target.parents[1], target.parent)
    copy_whole(archive, target)
