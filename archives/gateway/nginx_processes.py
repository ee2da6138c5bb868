"""The processes of an nginx, found through the process group that its master leads."""

from __future__ import annotations

from pathlib import Path

from archives.torchserve.processes import command, living


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
