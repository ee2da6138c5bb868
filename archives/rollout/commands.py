"""`sonode rollout ...`; heavy imports stay inside the functions."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sonode.command_group import CommandGroup
from sonode.console import UserError, say, table

if TYPE_CHECKING:
    from archives.rollout.status import Status
    from archives.state.control import Word
    from archives.state.journal import Desired

rollout = typer.Typer(cls=CommandGroup, help="Move traffic from one version to the next, and back.")

TRY_AGAIN = 75  # EX_TEMPFAIL
HISTORY = ("at", "guard", "said", "why", "not_done", "reason")  # facts of an entry that are told
STATE = typer.Option(Path("runs/rollout"), help="The folder of the gateway and the journal.")
AS_JSON = typer.Option(False, "--json", help="One JSON document.")


def mount(app: typer.Typer) -> None:
    """Add this room's commands to `app`."""
    app.add_typer(rollout, name="rollout", rich_help_panel="Roll out")


@rollout.command()
def start(
    new: Path = typer.Argument(help="The archive (.mar) to roll out."),
    *,
    nodes: Path = typer.Option(Path("nodes.yaml"), help="The TorchServe nodes."),
    policy: Path | None = typer.Option(
        None, help="policy.yaml; without it the defaults, or what it began with."
    ),
    state: Path = STATE,
    step_by_step: bool = typer.Option(
        False, help="Wait for `promote` after shadow, each canary step and keep."
    ),
) -> None:
    """Roll NEW out, in the foreground; the same words again go on where it ended.

    Exit codes: 0 it serves; 1 it was rolled back; 2 refused, as what was rolled back here before;
    75 a fault under way, as a full disk: the same words go on.
    """
    from archives.judging.policy import read_policy
    from archives.rollout.start import start as run

    chosen = read_policy(policy) if policy else None
    with _telling_faults():
        serves = run(new, nodes, chosen, state, step_by_step=step_by_step)
    raise typer.Exit(0 if serves else 1)


@rollout.command()
def promote(state: Path = STATE) -> None:
    """Go on to the next step now, without waiting for more evidence; guards still hold."""
    _ask(state, "promote")


@rollout.command()
def pause(state: Path = STATE) -> None:
    """Stay at this step; its guards go on."""
    _ask(state, "pause")


@rollout.command()
def resume(state: Path = STATE) -> None:
    """Go on after a pause, with the time that a step may take begun anew."""
    _ask(state, "resume")


@rollout.command()
def abort(state: Path = STATE) -> None:
    """Bring the old version back at once, from any step before the old one is unregistered."""
    _ask(state, "abort")


@rollout.command()
def repair(state: Path = STATE) -> None:
    """Cut off what cannot be read on of a damaged journal; a copy of it all is kept."""
    from archives.state.journal import Journal

    journal = Journal(_known(state))
    with journal.lock():
        kept, copy = journal.repair()
    if copy is None:
        say(f"the journal is sound: {kept} entries; nothing is changed")
    else:
        say(f"{kept} entries stay; the journal as it was is {copy}")
        say("the gateway follows what stays: look at `sonode rollout status` before you go on")


@rollout.command()
def allow(
    archive: Path = typer.Argument(help="The archive (.mar) that was rolled back here."),
    *,
    reason: str = typer.Option(help="Why it may be tried anew; it stays in the journal."),
    state: Path = STATE,
) -> None:
    """Let an archive be rolled out again that was rolled back here; `start` then takes it."""
    from archives.rollout.start import allow as run

    run(archive, reason, _known(state))
    say("allowed: `sonode rollout start` takes it, until it is rolled back again")


@rollout.command()
def status(
    state: Path = STATE,
    watch: bool = typer.Option(False, help="Every two seconds, until Ctrl-C."),
    as_json: bool = AS_JSON,
) -> None:
    """Show the step, who serves what, and how far each guard is from sending the version back."""
    from archives.rollout.status import status as look

    while True:
        found = look(_known(state))
        if as_json:
            say(json.dumps(found.plain()))
        else:
            if watch and sys.stdout.isatty():
                say("\x1b[H\x1b[2J")  # the screen anew
            _show(found)
        if not watch:
            return
        time.sleep(2)


@rollout.command()
def history(state: Path = STATE, as_json: bool = AS_JSON) -> None:
    """Show every transition, and why it was made."""
    from archives.state.journal import Journal

    for entry in Journal(_known(state)).entries():
        facts = dict(entry.facts)
        if as_json:
            head = {"seq": entry.seq, "time": entry.time, "rollout": entry.rollout}
            say(json.dumps(head | {"event": entry.event} | facts))
            continue
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        name = facts["step"] if entry.event == "canary" else entry.event
        told = [str(facts[key]) for key in HISTORY if facts.get(key)]
        told += [f"by {facts['by']}"] if facts.get("by") else []
        say(f"{entry.seq:4}  {when}  {name:<12} {' · '.join(told)}".rstrip())


@rollout.command()
def report(
    out: Path = typer.Argument(help="A folder for report.html and report.json."),
    *,
    state: Path = STATE,
) -> None:
    """Compare old and new version by what the gateway has logged in the last rollout."""
    from archives.judging.ab_report import write

    say(str(write(_known(state), out)))


@rollout.command()
def explain(
    out: Path = typer.Argument(help="A new folder for explain.html and explain.json."),
    *,
    state: Path = STATE,
) -> None:
    """Show why each guard of the last rollout said what it said, by client and study."""
    from archives.judging.explain import write

    say(str(write(_known(state), out)))


@contextmanager
def _telling_faults() -> Iterator[None]:
    from archives.rollout.start import Halted

    try:
        yield
    except Halted as fault:
        print(f"error: {fault}", file=sys.stderr)
        raise typer.Exit(TRY_AGAIN) from None


def _known(state: Path) -> Path:
    if not (state / "journal.jsonl").exists():
        raise UserError(f"--state {state}: no rollout was ever started here")
    return state


def _ask(state: Path, word: Word) -> None:
    """Hand the word to the command that runs; do it here where none does."""
    from archives.judging.facts import step_entry
    from archives.rollout import release as rollout_release
    from archives.rollout.start import go_on
    from archives.rollout.waiting import TOO_LATE
    from archives.state import control
    from archives.state.journal import Journal, fold

    journal = Journal(_known(state))

    def now() -> Desired:
        desired = fold(journal.entries())
        if desired.rollout is None:
            raise UserError(f"--state {state}: no rollout is under way; nothing to {word}")
        if desired.step in TOO_LATE:
            raise UserError(f"--state {state}: at {desired.step} it is too late to {word}")
        return desired

    desired = now()
    if word == "abort":
        rollout_release.take_back(state)  # before anything that takes room on the disk
        control.ask(state, word, desired.seq)
    if journal.is_locked():
        if word != "abort":
            control.ask(state, word, step_entry(journal.entries()).seq)
        say(f"{word}: asked at {desired.step}; see `sonode rollout status`")
        return
    if word == "promote":
        raise UserError(
            f"--state {state}: no rollout command runs; go on with `sonode rollout start` and "
            "the same words, then promote"
        )
    with journal.lock():
        desired = now()  # another command may have ended it meanwhile
        if word == "abort":
            with _telling_faults():
                go_on(journal)
        else:
            journal.append(
                word, rollout=desired.rollout, paused=word == "pause", why="by hand",
                by=control.operator(),
            )  # fmt: skip
            say(f"{word}: done; no rollout command runs, so nobody watches: start it again")


def _show(found: Status) -> None:
    desired = found.desired
    say(f"model    {desired.model}: {found.versions()}")
    say(f"step     {desired.step}" + (", PAUSED" if desired.paused else "") + found.since())
    say(f"command  {found.command()}")
    for node, told in found.nodes.items():
        say(f"node     {node}: {told}")
    if found.verdicts:
        rows = [
            (it.guard, it.state, "" if it.value is None else f"{it.value:.4f}",
             f"{it.limit:.4f}", str(it.n), f"{it.evidence:.0%}")
            for it in found.verdicts
        ]  # fmt: skip
        columns = ("guard", "state", "value", "limit", "n", "evidence")
        table(f"{found.answered} requests answered at this step", columns, rows)
