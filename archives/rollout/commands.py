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

from sonode import defaults
from sonode.command_group import CommandGroup
from sonode.console import TRY_AGAIN, UserError, say, table

if TYPE_CHECKING:
    from archives.rollout.status import Status
    from archives.state.control import Word
    from archives.state.journal import Desired

rollout = typer.Typer(cls=CommandGroup, help="Move traffic from one version to the next, or back.")

HISTORY = ("at", "guard", "said", "why", "not_done", "reason")  # facts of an entry that are shown
STATE = typer.Option(defaults.STATE, help="The folder of the gateway and the journal.")
AS_JSON = typer.Option(False, "--json", help="One JSON document.")


def mount(app: typer.Typer) -> None:
    """Add `sonode rollout` to `app`."""
    app.add_typer(rollout, name="rollout", rich_help_panel="Roll out")


@rollout.command()
def start(
    new: Path = typer.Argument(help="The archive (.mar) to roll out."),
    *,
    nodes: Path = typer.Option(Path("nodes.yaml"), help="The nodes behind the gateway."),
    policy: Path | None = typer.Option(
        None, help="policy.yaml. Default: that of the rollout to resume, or built-in limits."
    ),
    state: Path = STATE,
    step_by_step: bool = typer.Option(
        False, "--step-by-step", help="Wait for `promote` after shadow, each canary step and keep."
    ),
) -> None:
    """Roll out NEW, in the foreground; re-run the same command to resume.

    Exit codes: 0: NEW serves. 1: it was rolled back. 2: refused, for example because it was rolled
    back here before. 75: a fault of the machine, for example a full disk; re-run to resume.
    """
    from archives.judging.rollout_policy import read_policy
    from archives.rollout.start import start as run

    chosen = read_policy(policy) if policy else None
    with _exit_75_when_halted():
        serves = run(new, nodes, chosen, state, step_by_step=step_by_step)
    raise typer.Exit(0 if serves else 1)


def _asks(word: Word, what: str) -> None:
    """Add the command of a word to the rollout under way."""

    @rollout.command(word, help=what)
    def command(state: Path = STATE) -> None:
        _ask(state, word)


_asks("promote", "Go to the next step now, without more evidence; guards stay active.")
_asks("pause", "Stay at this step; its guards stay active.")
_asks("resume", "Go on after a pause; the step's time limit starts again.")
_asks("abort", "Roll back to the old version at once, at any step before that one is unregistered.")


@rollout.command()
def repair(state: Path = STATE) -> None:
    """Cut a damaged journal at the first unreadable entry; a copy of the whole is kept."""
    from archives.state.journal import Journal

    journal = Journal(_known(state))
    with journal.lock():
        kept, copy = journal.repair()
    if copy is None:
        say(f"the journal is intact: {kept} entries; nothing is changed")
    else:
        say(f"{kept} entries are kept; the damaged journal is now {copy}")
        say("the gateway follows the kept entries: check `sonode rollout status` before you go on")


@rollout.command()
def allow(
    archive: Path = typer.Argument(help="The archive (.mar) that was rolled back here."),
    *,
    reason: str = typer.Option(help="Why to try it again; the journal keeps it."),
    state: Path = STATE,
) -> None:
    """Allow `start` for an archive that was rolled back here."""
    from archives.rollout.start import allow as run

    run(archive, reason, _known(state))
    say("allowed: run `sonode rollout start`; a new rollback ends the permission")


@rollout.command()
def status(
    state: Path = STATE,
    watch: bool = typer.Option(False, "--watch", help="Repeat every two seconds, until Ctrl-C."),
    as_json: bool = AS_JSON,
) -> None:
    """Show the step, which version serves whom, and how close each guard is to a rollback."""
    from archives.rollout.status import status as run

    while True:
        found = run(_known(state))
        if as_json:
            say(json.dumps(found.plain()))
        else:
            if watch and sys.stdout.isatty():
                say("\x1b[H\x1b[2J")  # clear the screen
            _show(found)
        if not watch:
            return
        time.sleep(2)


@rollout.command()
def history(state: Path = STATE, as_json: bool = AS_JSON) -> None:
    """Show every step change and its reason."""
    from archives.state.journal import Journal

    for entry in Journal(_known(state)).entries():
        facts = dict(entry.facts)
        if as_json:
            head = {"seq": entry.seq, "time": entry.time, "rollout": entry.rollout}
            say(json.dumps(head | {"event": entry.event} | facts))
            continue
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        name = facts["step"] if entry.event == "canary" else entry.event
        shown = [str(facts[key]) for key in HISTORY if facts.get(key)]
        shown += [f"by {facts['by']}"] if facts.get("by") else []
        say(f"{entry.seq:4}  {when}  {name:<12} {' · '.join(shown)}".rstrip())


@rollout.command()
def report(
    out: Path = typer.Argument(help="A folder for report.html and report.json."),
    *,
    state: Path = STATE,
) -> None:
    """Compare old and new version by the gateway's logs of the last rollout."""
    from archives.judging.reports.ab_report import write

    say(str(write(_known(state), out)))


@rollout.command()
def explain(
    out: Path = typer.Argument(help="A new folder for explain.html and explain.json."),
    *,
    state: Path = STATE,
) -> None:
    """Explain each guard's verdicts in the last rollout, by client and study."""
    from archives.judging.reports.explain import write

    say(str(write(_known(state), out)))


@contextmanager
def _exit_75_when_halted() -> Iterator[None]:
    from archives.rollout.start import Halted

    try:
        yield
    except Halted as fault:
        print(f"error: {fault}", file=sys.stderr)
        raise typer.Exit(TRY_AGAIN) from None


def _known(state: Path) -> Path:
    if not (state / "journal.jsonl").exists():
        raise UserError(f"--state {state}: has no rollout; check the folder")
    return state


def _ask(state: Path, word: Word) -> None:
    """Pass the command to the running `start`; do it here where none runs."""
    from archives.judging.journal_facts import step_entry
    from archives.rollout import traffic_permit
    from archives.rollout.start import go_on
    from archives.rollout.waiting import TOO_LATE
    from archives.state import control
    from archives.state.journal import Journal, fold

    journal = Journal(_known(state))

    def now() -> Desired:
        desired = fold(journal.entries())
        if desired.rollout is None:
            raise UserError(f"--state {state}: no rollout is running; nothing to {word}")
        if desired.step in TOO_LATE:
            raise UserError(f"--state {state}: too late to {word} at step {desired.step}")
        return desired

    desired = now()
    if word == "abort":
        traffic_permit.take_back(state)  # before anything that takes disk space
        control.ask(state, word, desired.seq)
    if journal.is_locked():
        if word != "abort":
            control.ask(state, word, step_entry(journal.entries()).seq)
        say(f"{word}: sent at {desired.step}; see `sonode rollout status`")
        return
    if word == "promote":
        raise UserError(
            f"--state {state}: no rollout command is running; re-run `sonode rollout start`, then "
            "promote"
        )
    with journal.lock():
        desired = now()  # another command may have ended it meanwhile
        if word == "abort":
            with _exit_75_when_halted():
                go_on(journal)
        else:
            journal.append(
                word, rollout=desired.rollout, paused=word == "pause", why="by hand",
                by=control.operator(),
            )  # fmt: skip
            say(f"{word}: done; NOT MONITORED until you re-run `sonode rollout start`")


def _show(found: Status) -> None:
    desired = found.desired
    say(f"model    {desired.model}: {found.versions()}")
    say(f"step     {desired.step}" + (", PAUSED" if desired.paused else "") + found.since())
    say(f"command  {found.command()}")
    for node, node_state in found.nodes.items():
        say(f"node     {node}: {node_state}")
    if found.verdicts:
        rows = [
            (it.guard, it.state, "" if it.value is None else f"{it.value:.4f}",
             f"{it.limit:.4f}", str(it.n), f"{it.evidence:.0%}")
            for it in found.verdicts
        ]  # fmt: skip
        columns = ("guard", "state", "value", "limit", "n", "evidence")
        table(f"{found.answered} requests answered at this step", columns, rows)
