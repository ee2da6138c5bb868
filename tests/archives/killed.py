"""A process that is killed (SIGKILL) before each of its acts on files, one after the other."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

ACTS = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def is_killed(act: Callable[[], object], folder: Path, step: int) -> bool:
    """Do it in another process that is killed before its `step`-th act below the folder, from 1.

    Returns False where it has ended before. Raises AssertionError where it fails.
    """
    child = os.fork()
    if not child:
        acts = 0

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal acts
            if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
                pass
            elif event not in ACTS:
                return
            if str(arguments[0]).startswith(str(folder)):
                acts += 1
                if acts == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or not os.WEXITSTATUS(status)
    return os.WIFSIGNALED(status)
