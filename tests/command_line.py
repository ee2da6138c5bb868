"""`sonode` as a user calls it, without the seconds that a process of its own takes to import torch.

What a process alone shows (its imports, its signals, what it leaves behind) is tested in one.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO
from unittest import mock

from sonode import command_line

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def sonode(
    *arguments: object, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line here, in `cwd`; as `subprocess.run` gives it: exit code and output.

    A warning is no error, as in a process of its own.
    """
    words = ["sonode", *map(str, arguments)]
    output, errors = io.StringIO(), io.StringIO()
    handlers = [signal.getsignal(number) for number in SIGNALS]
    try:
        with (
            warnings.catch_warnings(),
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
            mock.patch.object(sys, "argv", words),
            mock.patch.dict(os.environ, environment or {}),
        ):
            warnings.simplefilter("ignore")
            command_line.main()
        code = 0
    except SystemExit as end:
        assert isinstance(end.code, int)
        code = end.code
    finally:
        for number, handler in zip(SIGNALS, handlers, strict=True):
            signal.signal(number, handler)
    return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())


def run_here(arguments: Sequence[str], log: IO[str] | None = None) -> int:
    """In place of `sonode.console.run_sonode`."""
    done = sonode(*arguments)
    (log or sys.stdout).write(done.stdout + done.stderr)
    return done.returncode
