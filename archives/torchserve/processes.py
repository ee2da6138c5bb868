"""Processes of this machine, by the process group that their first one leads."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def living(group: int | None) -> list[int]:
    """Processes of the group, its leader among them; those that only wait to be reaped are not."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, IndexError):  # ended meanwhile
                # After the name, which may hold anything: state, parent, group. A process whose
                # first thread alone has ended says Z, too, and its sockets are still open.
                after_name = (folder / "stat").read_text(errors="replace").rpartition(")")[2]
                state, _, its_group, *rest = after_name.split()
                if int(its_group) == group and (state != "Z" or int(rest[14]) > 1):  # threads
                    found.append(int(folder.name))
    return found


def command(pid: int | str) -> str:
    """Its command line, or what it calls itself; empty where there is none such."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def signal_group(group: int | None, number: signal.Signals) -> None:
    """Send it to all of the group, if there is one."""
    if group is not None:
        with suppress(ProcessLookupError):
            os.killpg(group, number)
