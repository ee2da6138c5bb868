"""The processes of an nginx: found through its master's process group, asked and ended."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from archives.torchserve.processes import command, living, signal_group
from sonode.console import ENDING

CONFIGURATION = "_conf.sock"  # no node has a name that begins so


def configuration(sockets: Path) -> Path:
    """The configuration of the nginx with these sockets; it stands in its master's command line."""
    return sockets / "nginx.conf"


def group_of(sockets: Path) -> int | None:
    """The process group of the nginx with these sockets: its master's process id.

    None where another process has that number by now: a restarted container counts its processes
    from the beginning, and may give an old nginx's number to another one.
    """
    group = _number(sockets)
    if group is None:
        return None
    leader = command(group)
    if leader:
        return group if str(configuration(sockets)) in leader else None
    # Its master is dead. Its workers keep the number in use, so one that a later nginx has is not
    # theirs any more.
    later = [it for it in sockets.parent.glob("s*") if generation_of(it) > generation_of(sockets)]
    return None if any(_number(it) == group for it in later) else group


def masters(folder: Path) -> dict[int, Path]:
    """The masters of all living nginxs of this folder: process id -> folder of its sockets.

    Also where somebody has removed that: they answer clients as before.
    """
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        words = command(process.name)
        if words.startswith("nginx: master") and f" -p {folder} " in words:
            found[int(process.name)] = Path(words.rpartition(" -c ")[2].strip()).parent
    return found


def _number(sockets: Path) -> int | None:
    try:
        return int((sockets / "nginx.pid").read_text())
    except (OSError, ValueError):
        return None


def generation_of(sockets: Path) -> int:
    """1 for s1, and so on; 0 for another folder."""
    return int(sockets.name[1:]) if sockets.name[1:].isdigit() else 0


def members(group: int | None) -> list[int]:
    """Processes of nginx in the group, its leader among them."""
    # A number that the system has given to others since is not nginx's.
    return [pid for pid in living(group) if "nginx" in command(pid)]


def serial_of(sockets: Path) -> str | None:
    """Which configuration a new connection to these sockets meets; None: nobody answers."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(2.0)
        connection.connect(str(sockets / CONFIGURATION))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.makefile("rb").read().decode().rpartition("\r\n\r\n")[2]
    return None


def finish(sockets: Path, most_s: float) -> None:
    """Let the nginx with these sockets answer what it has, for `most_s` seconds at most."""
    group = group_of(sockets)
    master = group if group is not None and command(group) else None
    if group is not None and (master or serial_of(sockets) is not None):
        if master:
            os.kill(master, signal.SIGQUIT)
        else:
            signal_group(group, signal.SIGQUIT)
        until = time.monotonic() + most_s
        while members(group) and time.monotonic() < until and not ENDING.at_once:
            time.sleep(0.05)


def end_lost(folder: Path) -> None:
    """Let nginxs whose folder of sockets somebody has removed take no more clients, and finish."""
    for master, sockets in masters(folder).items():
        if not sockets.exists():
            with suppress(ProcessLookupError):
                os.kill(master, signal.SIGQUIT)
