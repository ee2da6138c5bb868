"""What a node is, whichever server runs in it: a run folder of its own, ports, a process group."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import httpx

from archives.packing.members import MANIFEST
from archives.state.files import alone
from archives.torchserve.java import HOST, claim_ports
from archives.torchserve.key_file import Keys, Kind, ask
from archives.torchserve.processes import living, signal_group
from archives.torchserve.worker_plan import plan
from sonode.console import ENDING, UserError

HANDLER = "SONODE_HANDLER_"  # see handlers/settings.py
# What a server's processes are called, and the file of the run folder that they name.
LAUNCHED = {b"ts.model_server", b"org.pytorch.serve.ModelServer"}
LAUNCHED |= {b"archives.asgi.server", b"archives.asgi.workers.worker"}
CONFIGS = ("config.properties", "server.json")


class ServerNode(ABC):
    """A server of its own, as a context manager that enters when every model answers.

    `models` maps the name to serve under to an archive's file name in `store`. `run_dir` receives
    the configuration, the key file, `logs/` and, while the node runs, the unpacked archives. Ports
    left out are free ones; `inference_url` and `management_url` are bases, `metrics_url` is the
    page. `settings` are lines that override config.properties, addresses apart; `handler` holds
    settings of the archives' handlers that override their own (see `handlers.settings`).
    Raises UserError when it cannot start; nothing of it is then left running.
    """

    server: str
    """Its name in messages."""
    log: str
    """The file of `logs/` that is its own."""
    apis: tuple[str, ...] = ("inference", "management", "metrics")
    poll_s = 0.2
    stop_timeout_s = 15.0  # Java needs one or two

    def __init__(
        self,
        store: Path,
        models: Mapping[str, str],
        run_dir: Path,
        *,
        inference_port: int | None = None,
        management_port: int | None = None,
        metrics_port: int | None = None,
        settings: Mapping[str, str] | None = None,
        handler: Mapping[str, str] | None = None,
        start_timeout_s: float = 180.0,
    ) -> None:
        self.store = store.resolve()
        self.models = dict(models)
        self.run_dir = run_dir.resolve()
        self.key_file = self.run_dir / "key_file.json"
        given = {
            "inference": inference_port,
            "management": management_port,
            "metrics": metrics_port,
        }
        self._wanted_ports = {api: given.get(api) for api in self.apis}
        self._settings = dict(settings or {})
        self._handler = {f"{HANDLER}{key.upper()}": it for key, it in (handler or {}).items()}
        self.plan = plan()
        self._start_timeout_s = start_timeout_s
        self._temp = self.run_dir / "tmp"
        self._process: subprocess.Popen[str] | None = None
        self._held = ExitStack()  # the run folder
        self._console: deque[str] = deque(maxlen=5000)

    @abstractmethod
    def _configure(self) -> Sequence[str]:
        """Write the configuration into the run folder; the command that starts the server."""

    @abstractmethod
    def _environment(self) -> dict[str, str]:
        """Of that command."""

    @abstractmethod
    def _failure(self) -> str | None:
        """Why a model does not load, from the console, where the server itself goes on."""

    def __enter__(self) -> Self:
        try:
            self._prepare()
        except BaseException:
            self._held.close()
            raise
        try:
            self._launch()
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def token(self, kind: Kind = "inference") -> str:
        """Return the token for this API; see `archives.torchserve.key_file.Keys.token`."""
        return self._keys.token(kind)

    def check_alive(self) -> None:
        """Raise UserError, with the server's last words, if it has ended."""
        if self._process is None or self._process.poll() is not None:
            self._reader.join(1.0)  # its last words may still be on their way
            output = [line.strip() for line in list(self._console) if line.strip()]
            last = output[-1] if output else "no output"
            raise UserError(f"{self.server} has ended ({last}): see {self.run_dir / 'logs'}")

    def stop(self) -> None:
        """End the server and its workers, and remove the key file and the unpacked archives."""
        with self._held:
            self._stop()

    def _stop(self) -> None:
        if self._process is None:
            shutil.rmtree(self._temp, ignore_errors=True)
            return
        process, self._process = self._process, None
        ENDING.awaited = f"{self.server} to end"
        try:
            if not ENDING.at_once:
                signal_group(process.pid, signal.SIGTERM)
                # The console closes when the server has gone; a launcher goes before it.
                self._reader.join(self.stop_timeout_s)
        finally:
            # Also for a worker that was respawned on its way out, and at a second Ctrl-C.
            signal_group(process.pid, signal.SIGKILL)
            process.wait()
            self._reader.join()
            if process.stdin:
                process.stdin.close()
            self.key_file.unlink(missing_ok=True)
            shutil.rmtree(self._temp, ignore_errors=True)

    def _prepare(self) -> None:
        for file in self.models.values():
            if Path(file).name != file or not zipfile.is_zipfile(self.store / file):
                raise UserError(
                    f"{file} is not an archive in {self.store}: give the name of one that is "
                    "there, or make one with `sonode pack`"
                )
        lock = self.run_dir / "lock"
        if lock.exists():
            self._hold(lock)
            _end_earlier(self.run_dir)
        self._ports = claim_ports(self._wanted_ports)
        self.inference_url = f"http://{HOST}:{self._ports['inference']}"
        self.management_url = f"http://{HOST}:{self._ports['management']}"
        self.metrics_url = f"http://{HOST}:{self._ports['metrics']}/metrics"
        self._keys = Keys(self.key_file, self.management_url)
        if not lock.exists():
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self._hold(lock)
        # Left over where an earlier node could not clean up after itself (a power cut).
        shutil.rmtree(self._temp, ignore_errors=True)
        self.key_file.unlink(missing_ok=True)
        self._temp.mkdir()

    def _hold(self, lock: Path) -> None:
        """Be the only node in the run folder until `stop`."""
        taken = f"run folder {self.run_dir}: a node runs in it; stop that node, or give another"
        self._held.enter_context(alone(lock.open("ab"), taken))

    def _launch(self) -> None:
        self._process = subprocess.Popen(
            self._configure(),
            cwd=self.run_dir,
            # Workers inherit it; threads that the operator has set stay.
            env={f"{HANDLER}THREADS": str(self.plan.threads)} | self._environment() | self._handler,
            stdin=subprocess.PIPE,  # it closes when this process ends, however it does
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a group of its own: Ctrl-C reaches us, and we end the group
            umask=0o077,  # TorchServe narrows the key file's mode only after writing it
        )
        # Not waited for at the end of this process, which ends the server: see its stdin.
        self._reader = threading.Thread(
            target=self._read_console, args=[self._process], daemon=True
        )
        self._reader.start()

    def _version(self, name: str) -> str:
        with zipfile.ZipFile(self.store / self.models[name]) as archive:
            return str(json.loads(archive.read(MANIFEST))["model"]["modelVersion"])

    def _read_console(self, process: subprocess.Popen[str]) -> None:
        # Kept in memory, for error messages: logs/ has the same lines, and rotates them.
        assert process.stdout is not None
        with process.stdout:
            self._console.extend(process.stdout)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not self._ready():
            self.check_alive()
            if reason := self._failure():
                raise UserError(
                    f"{reason}: check the archive with `sonode inspect --verify`; the whole log "
                    f"is {self.run_dir / 'logs' / 'model_log.log'}"
                )
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self.server} is not ready after {self._start_timeout_s:g} s: see "
                    f"{self.run_dir / 'logs'}"
                )
            time.sleep(self.poll_s)

    def _ready(self) -> bool:
        try:
            token = self.token("management")
            for name, file in self.models.items():
                answer = ask("GET", f"{self.management_url}/models/{name}", token)
                if answer.status_code == httpx.codes.NOT_FOUND:  # it registers before it listens
                    raise UserError(
                        f"{self.server} refuses {file}: check it with `sonode inspect --verify`; "
                        f"see {self.run_dir / 'logs' / self.log}"
                    )
                workers: list[dict[str, Any]] = answer.raise_for_status().json()[0]["workers"]
                if not any(worker["status"] == "READY" for worker in workers):
                    return False
            return ask("GET", f"{self.inference_url}/ping", self.token()).is_success
        except (OSError, ValueError, KeyError, httpx.TransportError):
            return False  # the key file is not there or not whole, or a port is not open yet


def _end_earlier(run_dir: Path) -> None:
    """End what a killed node has left behind: a server with its workers, of this run folder."""
    configs = {os.fsencode(run_dir / name) for name in CONFIGS}
    groups = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            words = {*(folder / "cmdline").read_bytes().split(b"\0")}
            if words & configs and words & LAUNCHED:
                groups.add(os.getpgid(int(folder.name)))
    for group in groups - {os.getpgrp()}:
        signal_group(group, signal.SIGKILL)
        while living(group):  # else its ports are still in use
            time.sleep(0.02)
