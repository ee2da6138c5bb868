"""One nginx: started, adopted, reconfigured without losing a request, ended.

nginx outlives its supervisor (kill -9) and goes on with its last configuration; the next supervisor
adopts it. It leads a process group of its own, so that its workers are found when it is killed
itself: they go on answering until the next nginx listens beside them (SO_REUSEPORT). Each nginx has
a new folder for its sockets, which those of a killed one would block.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from archives.gateway.nginx import rotation
from archives.gateway.nginx.processes import (
    CONFIGURATION,
    configuration,
    end_lost,
    finish,
    generation_of,
    group_of,
    masters,
    members,
    serial_of,
)
from archives.gateway.nginx.program import Program, find_nginx
from archives.gateway.nginx.rotation import LOG_BYTES, LOGS, LOGS_KEPT
from archives.state.files import make_folder, open_own, write_private
from archives.torchserve.node import SOCKET_PATH_MAX
from archives.torchserve.processes import command, signal_group
from sonode.console import ENDING, UserError

STOP_TIMEOUT_S = 150.0  # the longest request; see worker_shutdown_timeout
START_TIMEOUT_S = 10.0
Render = Callable[[Path], tuple[str, str]]
"""The folder of its sockets -> a configuration, and the serial that it answers with."""
SHADOW = "_copy.sock"


class Nginx:
    """The nginx of the folder `folder`. `workers` is the number that its configuration names.

    `binary` is an nginx with njs, built in or as a module; None: that of the extra `gateway`.
    """

    def __init__(self, folder: Path, workers: int, binary: Path | None = None) -> None:
        # Not what `folder` may be a link to: its configuration names it so, too.
        self.folder = folder.parent.resolve() / folder.name
        self._workers = workers
        self._given = binary
        self._children: list[subprocess.Popen[bytes]] = []  # the last one is the one at work
        self._loaded: str | None = None  # the serial of what it answers with, as far as is known
        for made in (self.folder, self.folder / "tmp"):
            make_folder(self.folder.parent, made)
        self.folder.chmod(0o700)

    @cached_property
    def program(self) -> Program:
        """The nginx that runs. Raises UserError for one that is too old or has no njs."""
        return find_nginx(self._given)

    def check_folder(self, names: Iterable[str]) -> None:
        """Raise UserError where nginx could not work here; `names`: of the nodes, as of sockets."""
        where = f"--state {self.folder.parent}"
        if not re.fullmatch(r"[\w./+@:=-]+", str(self.folder)):
            raise UserError(f"{where}: choose a path of letters, digits and ./_+@:=- for nginx")
        longest = max((CONFIGURATION, SHADOW, *(f"{name}.sock" for name in names)), key=len)
        if len(os.fsencode(self.folder / "s1000" / longest)) > SOCKET_PATH_MAX:
            raise UserError(
                f"{where}: is too long for the sockets of nginx: choose a shorter path (sockets "
                f"have at most {SOCKET_PATH_MAX} bytes)"
            )

    def remove_failed_starts(self) -> None:
        """Remove what kills have left of starts that came to no process; those before it count."""
        end_lost(self.folder)
        for generation in self._generations():
            if not members(group_of(self.folder / f"s{generation}")):
                _remove(self.folder / f"s{generation}")

    def running(self) -> bool:
        """Whether its master process lives and got no signal to quit."""
        return self._master() is not None

    def start(self, render: Render) -> None:
        """Start it; workers that a killed one has left answer until it listens, then finish.

        Raises UserError where it does not start.
        """
        others = [*self.folder.glob("s*"), *masters(self.folder).values()]
        sockets = self.folder / f"s{max(map(generation_of, others), default=0) + 1}"
        child = None
        try:
            child = self._launch(sockets, render)
        finally:
            if child is None:  # a full disk, a Ctrl-C: nothing answers for what was begun
                _remove(sockets)
        self._children = [*(it for it in self._children if it.poll() is None), child]
        self._end_earlier()
        end_lost(self.folder)

    def _launch(self, sockets: Path, render: Render) -> subprocess.Popen[bytes]:
        """Start it with these sockets, and return when it answers; else it is ended again."""
        make_folder(self.folder.parent, sockets)
        for name in ("nginx.log", *LOGS):  # else they would be root's
            open_own(self.folder.parent, self.folder / name).close()
        text, serial = render(sockets)
        config = configuration(sockets)
        self._write(config, text)
        with (self.folder / "nginx.log").open("ab") as log:
            child = subprocess.Popen(
                [self.program.path, "-p", str(self.folder), "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
            )
        until = time.monotonic() + START_TIMEOUT_S
        try:
            while serial_of(sockets) != serial:
                if child.poll() is not None or time.monotonic() > until:
                    raise UserError(f"nginx does not start ({self._last_words()}): see {log.name}")
                time.sleep(0.02)
        except BaseException:
            signal_group(child.pid, signal.SIGKILL)
            child.wait()
            raise
        self._loaded = serial
        return child

    def reload(self, render: Render) -> None:
        """Change its configuration; requests under way end under the one they began with.

        Returns when new connections meet the new one: of another nginx, where this one cannot take
        it, as with a zone that has another key (an nginx that an earlier sonode started). Raises
        UserError for a configuration that nginx refuses; the one before then stays.
        """
        self._end_earlier()
        sockets = self._sockets()
        text, serial = render(sockets)
        if serial == self._loaded:
            return
        if serial == self.serial():
            self._loaded = serial
            return
        if reason := self.refusal(text):
            raise UserError(f"nginx refuses its configuration ({reason})")
        self._write(configuration(sockets), text)
        self._signal(signal.SIGHUP)
        until = time.monotonic() + START_TIMEOUT_S
        while self.serial() != serial:
            if time.monotonic() > until:
                self.start(render)
                return
            time.sleep(0.02)
        self._loaded = serial

    def refusal(self, text: str) -> str:
        """Why nginx refuses a configuration, as it reports it; empty where it accepts it."""
        return self.program.refusal(self.folder, text)

    def serial(self) -> str | None:
        """Which configuration a new connection meets; None: nobody answers."""
        return serial_of(self._sockets())

    def finishing(self) -> int:
        """How many processes of an earlier configuration still have requests to answer.

        Among them are those that a killed or quitting nginx has left.
        """
        earlier, latest = self._generations()[:-1], members(group_of(self._sockets()))
        left = sum(len(members(group_of(self.folder / f"s{it}"))) for it in earlier)
        return left + max(0, len(latest) - 1 - self._workers)

    def rotate(self, limit: int = LOG_BYTES, kept: int = LOGS_KEPT) -> list[Path]:
        """Move logs beyond `limit` bytes aside; those moved files are returned. No line is lost.

        Of each log the latest `kept` moved files stay.
        """
        moved = rotation.move(self.folder, limit, kept)
        if moved or rotation.missing(self.folder):
            self._signal(signal.SIGUSR1)  # opens new ones
        return moved

    def drain(self, render: Render) -> None:
        """Take no more clients, and wait for the requests under way, for STOP_TIMEOUT_S at most.

        `render` gives a configuration without the clients' side: it keeps the ways to the nodes
        open for what the workers before it still hold.
        """
        if self.running():
            self.reload(render)
            until = time.monotonic() + STOP_TIMEOUT_S
            while self.finishing() and time.monotonic() < until and not ENDING.at_once:
                time.sleep(0.05)

    def stop(self) -> None:
        """Let it finish its requests, then end it; nothing of it is left."""
        try:
            for generation in self._generations():
                finish(self.folder / f"s{generation}", STOP_TIMEOUT_S)
        finally:  # also at a second Ctrl-C
            for generation in self._generations():
                sockets = self.folder / f"s{generation}"
                if members(group_of(sockets)):
                    signal_group(group_of(sockets), signal.SIGKILL)
                _remove(sockets)
            for master in masters(self.folder):
                signal_group(master, signal.SIGKILL)
            for child in self._children:
                child.wait()

    def _write(self, config: Path, text: str) -> None:
        write_private(self.folder.parent, config, text.encode())

    def _signal(self, number: signal.Signals) -> None:
        master = self._master()
        if master is not None:
            with suppress(ProcessLookupError):
                os.kill(master, number)

    def _generations(self) -> list[int]:
        return sorted(
            int(path.name[1:]) for path in self.folder.glob("s*") if path.name[1:].isdigit()
        )

    def _sockets(self) -> Path:
        return self.folder / f"s{(self._generations() or [0])[-1]}"

    def _master(self) -> int | None:
        """The process id of a living master that takes connections."""
        if self._children and self._children[-1].poll() is not None:
            return None
        sockets = self._sockets()
        if not (sockets / CONFIGURATION).exists():
            return None  # it is quitting: it listens no more, and ignores other signals
        group = group_of(sockets)
        return group if group is not None and command(group) else None

    def _end_earlier(self) -> None:
        """Let killed or quitting nginxes finish what they have; they take no more."""
        for generation in self._generations()[:-1]:
            earlier = self.folder / f"s{generation}"
            if not members(group_of(earlier)):
                _remove(earlier)
            elif not (earlier / CONFIGURATION).is_symlink():
                takes_more = serial_of(earlier) is not None
                # What they have still has to reach a node: through the new one from now on.
                for path in self._sockets().glob("*.sock"):
                    link = earlier / f"{path.name}.new"
                    link.symlink_to(path)
                    link.replace(earlier / path.name)
                if takes_more:
                    signal_group(group_of(earlier), signal.SIGQUIT)

    def _last_words(self) -> str:
        lines = (self.folder / "nginx.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "no output"


def _remove(sockets: Path) -> None:
    shutil.rmtree(sockets, ignore_errors=True)
