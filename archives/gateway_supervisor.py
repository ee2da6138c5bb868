"""`sonode gateway`: keeps one nginx in line with the journal and with what its nodes can do.

The journal says which versions to serve and whom; a thread for each node keeps its token fresh,
watches it, and brings it back to exactly those versions before it gets traffic again. Killed at any
point, it is started again and adopts the nginx that went on meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from archives import clients, gateway
from archives.gateway import GatewaySettings
from archives.journal import Desired, Journal, fold
from archives.nginx import Nginx
from archives.nodes import Node, NodeSettings
from sonode_console import UserError, say

logger = logging.getLogger(__name__)

LOOP_S = 0.1
TOKEN_S = 0.2  # how often a node's key file is looked at
PROBE_S = 1.0
FAILURES = 2  # probes without an answer that take a node out; a refused connection does at once
RETRY_S = 5.0  # between attempts to bring a node's versions back


@dataclass(frozen=True)
class Seen:
    """What is known of a node."""

    up: bool = False
    """It serves exactly what it should, or did when it came in and still serves `stable`."""
    why: str = "not asked yet"
    """Why it is not up."""
    ready: frozenset[str] = frozenset()
    """Versions with a ready worker."""


class Watch(threading.Thread):
    """Looks after one node in the background; `seen` is replaced as a whole."""

    def __init__(self, node: Node, state: Path, desired: Callable[[], Desired]) -> None:
        super().__init__(name=f"node {node.name}", daemon=True)
        self.node = node
        self.seen = Seen()
        self._state = state
        self._desired = desired
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, f"mend {node.name}")
        self._mending: Future[None] | None = None
        self._mend_at = 0.0
        self._trouble = ""
        self._failures = 0
        self._token = ""

    def run(self) -> None:
        """Watch until `end`; the thread's own."""
        probe_at = 0.0
        while not self._ended.wait(TOKEN_S):
            self._pass_token_on()
            if time.monotonic() >= probe_at:
                self.seen = self._probe()
                probe_at = time.monotonic() + PROBE_S

    def end(self) -> None:
        """Stop; what is being registered is left to TorchServe."""
        self._ended.set()
        self.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _pass_token_on(self) -> None:
        with suppress(httpx.HTTPError, OSError, ValueError, KeyError):  # the probe tells of it
            token = self.node.token()
            if token != self._token:
                clients.write_token(self._state, self.node.name, token)
                self._token = token

    def _probe(self) -> Seen:
        desired = self._desired()
        try:
            if not self.node.healthy():
                raise httpx.RemoteProtocolError("not healthy")
            there = self.node.versions(desired.model) if desired.model else {}
        except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
            self._failures += 1
            gone = isinstance(error, httpx.ConnectError | FileNotFoundError)
            if self.seen.up and not gone and self._failures < FAILURES:
                return self.seen
            return Seen(why="does not answer")
        self._failures = 0
        ready = frozenset(version for version, workers in there.items() if workers)
        if desired.stable is None or desired.model is None:
            return Seen(up=True)  # nothing to serve yet
        wanted = {release.version for release in desired.serves}
        stays = self.seen.up and desired.stable.version in ready
        # A node that is in stays in for what it can do: a candidate that fails to start must not
        # take the stable version's nodes away, nor is undone what a rollout is just registering.
        if (ready == wanted == set(there)) or (stays and wanted <= set(there)):
            return Seen(True, "", ready)
        return Seen(stays, self._mend(desired, wanted - ready, set(there) - wanted), ready)

    def _mend(self, desired: Desired, missing: set[str], odd: set[str]) -> str:
        """Bring the versions in line, beside the watching; return what is the matter."""
        if self._mending is not None and self._mending.done():
            error = self._mending.exception()
            self._mending = None
            self._mend_at = time.monotonic() + (RETRY_S if error else 0)
            self._trouble = _in_words(error) if error else ""
        if self._mending is None and time.monotonic() >= self._mend_at:
            assert desired.model and desired.stable
            self._mending = self._pool.submit(
                self.node.ensure, desired.model, desired.stable, desired.serves
            )
        told = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        told += [f"also serves {', '.join(sorted(odd))}"] if odd else []
        told += [self._trouble] if self._trouble else []
        return "; ".join(told) or "is being looked at"


def _in_words(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, httpx.HTTPStatusError):
        return f"TorchServe refused with {error.response.status_code}; see the node's logs"
    return f"{type(error).__name__} while it was brought in line"


class Supervisor:
    """The gateway of a state folder, as a context manager that enters when nginx answers.

    Within it a thread keeps nginx in line; what goes wrong on the way is logged, and the gateway
    goes on as it was. Raises UserError where it cannot start; nothing new is then left running. At
    the end nginx answers what it has, and ends.
    """

    def __init__(
        self, nodes: Sequence[NodeSettings], state: Path, settings: GatewaySettings
    ) -> None:
        self.state = state
        self.settings = settings
        self.desired = Desired()
        self.nginx = Nginx(state / "gateway", gateway.WORKERS)
        self.watches = [
            Watch(Node(node, state / "archives"), state, lambda: self.desired) for node in nodes
        ]
        self._nodes = nodes
        self._journal = Journal(state)
        self._read: tuple[int, int] | None = None
        self._applied = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="gateway")

    def __enter__(self) -> Self:
        self.nginx.check_folder(max((node.name for node in self._nodes), key=len))
        if not clients.clients(self.state):
            raise UserError(
                f"--state {self.state}: no client may ask yet; make the first one's token with "
                f"`sonode gateway-token NAME --state {self.state}`"
            )
        clients.study_key(self.state)
        self._read_journal()
        for watch in self.watches:
            watch.start()
        try:
            # A node that answers is known within this time, so that the first request meets it.
            until = time.monotonic() + 2 * PROBE_S
            while time.monotonic() < until and not all(watch.seen.up for watch in self.watches):
                time.sleep(LOOP_S)
            self._step()
        except BaseException:
            self._end_watches()
            raise
        self._thread.start()
        self._say_where()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._end_watches()
        self.nginx.stop()

    def _keep(self) -> None:
        told = ""
        while not self._ended.wait(LOOP_S):
            try:
                self._step()
            except (UserError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    logger.error("%s", told)
                self._ended.wait(1.0)

    def _step(self) -> None:
        """Bring nginx in line with what is known now."""
        self._read_journal()
        if self.nginx.running():
            self.nginx.reload(self._render)
        else:
            self.nginx.start(self._render)
        self.nginx.rotate()
        self._tell()

    def _end_watches(self) -> None:
        for watch in self.watches:
            if watch.is_alive():
                watch.end()

    def _read_journal(self) -> None:
        with suppress(FileNotFoundError):
            stat = self._journal.path.stat()
            if (stat.st_ino, stat.st_size) != self._read:
                self.desired = fold(self._journal.entries())
                self._read = stat.st_ino, stat.st_size

    def _render(self, sockets: Path) -> tuple[str, str]:
        desired = self.desired
        ready: dict[str, list[str]] = {}
        for arm in ("stable", "candidate"):
            release = getattr(desired, arm)
            ready[arm] = [
                watch.node.name
                for watch in self.watches
                if release and (seen := watch.seen).up and release.version in seen.ready
            ]
        return gateway.render(desired, self._nodes, ready, self.settings, self.state, sockets)

    def _tell(self) -> None:
        """Write applied.json when no request is answered by an earlier configuration any more."""
        if self.nginx.finishing():
            return
        told = {
            "seq": self.desired.seq,
            "nodes": {w.node.name: "up" if w.seen.up else w.seen.why for w in self.watches},
        }
        if (text := json.dumps(told)) != self._applied:
            path = self.state / "gateway" / "applied.json"
            part = path.with_suffix(".part")
            part.write_text(json.dumps(told | {"time": round(time.time(), 3)}) + "\n")
            part.replace(path)
            self._applied = text

    def _say_where(self) -> None:
        scheme = "https" if self.settings.certificate else "http"
        model = self.desired.model or "MODEL"
        say(f"gateway       {scheme}://{self.settings.listen}/predictions/{model}")
        for watch in self.watches:
            say(f"  node {watch.node.name:<8} {'up' if watch.seen.up else watch.seen.why}")
        say(f"  clients     `sonode gateway-token NAME --state {self.state}` prints a token")
        say(f"  logs        {self.nginx.folder}")


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Be the only gateway of a state folder. Raises UserError where another one is."""
    folder = state / "gateway"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--state {state}: its gateway is running; stop that one, or give another --state"
            ) from None
        yield


def run(nodes: Sequence[NodeSettings], state: Path, settings: GatewaySettings) -> None:
    """Run the gateway in the foreground until Ctrl-C."""
    try:
        with only_one(state), Supervisor(nodes, state, settings):
            say("Ctrl-C stops it")
            while True:
                time.sleep(1)
    except KeyboardInterrupt:
        say("stopped")
