"""`sonode gateway`: keeps one nginx in line with the journal and with what its nodes can do.

The journal says which versions to serve and whom; a thread for each node (see `nodes/watch.py`)
says what it can do. Killed at any point, it is started again and adopts the nginx that went on.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from archives.gateway.certificate import Pair
from archives.gateway.configuration.render import WORKERS, authority, render
from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.health import Health
from archives.gateway.logs import last_applied
from archives.gateway.nginx.nginx import Nginx
from archives.gateway.nginx.program import find_nginx
from archives.gateway.spans import Spans
from archives.nodes.addresses import Addresses
from archives.nodes.nodes import PROBE_TIMEOUT_S, Node
from archives.nodes.nodes_file import NodeSettings
from archives.nodes.watch import NOT_YET, Seen, Watch
from archives.state import tokens_and_keys
from archives.state.files import alone, make_folder, open_own, owner, write_private
from archives.state.journal import Desired, Entry, Journal, fold
from archives.torchserve.java import claim_ports
from sonode import traces
from sonode.console import ENDING, UserError, say

logger = logging.getLogger(__name__)

LOOP_S = 0.1


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
        self.nginx, self._pair = parts(state, settings)
        self.watches = [
            Watch(Node(node, state / "archives"), state, lambda: self.desired) for node in nodes
        ]
        self._nodes = nodes
        self._addresses = Addresses(map(authority, nodes), state)
        self._health = Health(state, self._pair)
        self._spans = Spans(state) if traces.asked() else None
        self._journal = Journal(state)
        self._entries: list[Entry] = []
        self._applied, self._applied_seq = "", 0
        self._draining = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="gateway")

    def __enter__(self) -> Self:
        ENDING.awaited = "the requests that the gateway still has"
        check(self.nginx, self.settings, [node.name for node in self._nodes])
        self._read_journal()
        if 0 < self.desired.percent < 100 and not (self.state / "key").exists():
            logger.warning("%s: missing; the new key moves studies", self.state / "key")
        tokens_and_keys.prepare(self.state)
        self._addresses.look()
        self._addresses.start()
        # Behind an nginx that went on without a supervisor, nodes that were in stay so: a rollout
        # may be registering something there.
        adopted = self.nginx.running()
        were_in = self._were_in() if adopted else set()
        for watch in self.watches:
            watch.seen = Seen(up=watch.node.name in were_in)
            watch.start()
        try:
            # All is known before nginx is configured, unless a node hangs.
            until = time.monotonic() + PROBE_TIMEOUT_S
            while any(it.seen.why == NOT_YET for it in self.watches) and time.monotonic() < until:
                time.sleep(LOOP_S)
            self._step()
            if self._pair:
                self._pair.refuse_expired()
            self._say_where()
            self._thread.start()
        except BaseException as fault:
            # Behind a start that fails the nginx that went on still goes on; who stops the command
            # (Ctrl-C, SIGTERM) stops the gateway.
            self._close(stop=not adopted or isinstance(fault, KeyboardInterrupt))
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        try:
            self._thread.join()
            # Nodes' tokens are renewed until the last request under way has its answer.
            self._draining = True
            self.nginx.drain(self._render)
        except (UserError, OSError) as error:
            logger.error("open requests may be cut off: %s", error)
        finally:
            self._close(stop=True)

    def _close(self, *, stop: bool) -> None:
        """End its threads, and nginx with them; also at a second Ctrl-C."""
        self._ended.set()
        try:
            if self._thread.is_alive():
                self._thread.join()
        finally:
            try:
                self._end_watches()
            finally:
                if stop:
                    self.nginx.stop()
                if self._spans:
                    self._spans.close()

    def check_alive(self) -> None:
        """Raise UserError where one of its threads has ended; its traceback has been printed."""
        if not all(thread.is_alive() for thread in (self._thread, self._addresses, *self.watches)):
            raise UserError("the gateway failed, see above: start it again, and report it")

    def _keep(self) -> None:
        logged = ""
        while not self._ended.wait(LOOP_S):
            try:
                self._step()
            except (UserError, OSError) as error:
                if str(error) != logged:
                    logged = str(error)
                    logger.error("%s", logged)
                self._ended.wait(1.0)
            except Exception as fault:  # of ours: nginx goes on as it was, and so do we
                if repr(fault) != logged:
                    logged = repr(fault)
                    logger.exception("internal error of the gateway; please report it")
                self._ended.wait(1.0)

    def _step(self) -> None:
        """Bring nginx in line with what is known now."""
        self._read_journal()
        if self._pair:
            self._pair.look()
        self._health.look()
        if self.nginx.running():
            self.nginx.reload(self._render)
        else:
            self.nginx.start(self._render)
        self.nginx.rotate()
        self._write_applied()
        if self._spans:
            self._spans.send()

    def _end_watches(self) -> None:
        self._addresses.end()
        for watch in self.watches:
            if watch.is_alive():
                watch.end()

    def _read_journal(self) -> None:
        entries = self._journal.entries()
        if entries and entries is not self._entries:  # a missing one changes nothing
            self._entries, self.desired = entries, fold(entries)

    def _render(self, sockets: Path) -> tuple[str, str]:
        desired, faults = self.desired, self._health.faults
        if "disk_full" in faults:  # what cannot be judged gets no traffic
            desired = replace(desired, percent=0.0, shadow_percent=0.0)
        ready: dict[str, list[str]] = {}
        for arm in ("stable", "candidate"):
            release = getattr(desired, arm)
            ready[arm] = [
                watch.node.name
                for watch in self.watches
                if release and (seen := watch.seen).up and release.version in seen.ready
            ]
        barred = [watch.node.name for watch in self.watches if watch.seen.barred]
        speak = {it.node.name: it.speaks_open_inference for it in self.watches}
        found, settings = self._addresses.found, self.settings
        return render(
            *(desired, self._nodes, ready, barred, speak, found, settings, self._pair),
            *(self.state, sockets, faults),
            module=self.nginx.program.module,
            draining=self._draining,
        )

    def _write_applied(self) -> None:
        """Write the metrics where they have changed.

        applied.json is written when no request is answered by an earlier configuration any more.
        """
        facts = {
            "seq": self.desired.seq,
            "nodes": {w.node.name: "up" if w.seen.up else w.seen.why for w in self.watches},
            "faults": self._health.faults,
        }
        path = self.state / "gateway" / "applied.json"
        text = json.dumps(facts)
        if (text != self._applied or not path.exists()) and not self.nginx.finishing():
            line = json.dumps(facts | {"time": round(time.time(), 3)}) + "\n"
            write_private(self.state, path, line.encode())
            self._applied, self._applied_seq = text, self.desired.seq
        # Faults and nodes wait for no request under way.
        up = {watch.node.name: watch.seen.up for watch in self.watches}
        self._health.write_metrics(up, self._applied_seq)

    def _were_in(self) -> set[str]:
        """Nodes that the previous supervisor had in use."""
        nodes = last_applied(self.state).get("nodes", {})
        return {name for name, state in nodes.items() if state == "up"}

    def _say_where(self) -> None:
        scheme = "https" if self.settings.certificate else "http"
        model = self.desired.model or "MODEL"
        say(f"gateway       {scheme}://{self.settings.listen}/predictions/{model}")
        for watch in self.watches:
            say(f"  node {watch.node.name:<8} {'up' if watch.seen.up else watch.seen.why}")
        state = self.state.resolve()
        say(f"  clients     `sonode gateway-token NAME --state {state}` prints a token")
        if not tokens_and_keys.clients(self.state):
            say("              there are NO TOKENS yet: every request is refused with 401")
        say(f"  logs        {self.nginx.folder}")
        if os.geteuid() == 0 and owner(self.state) == 0:
            say("  ROOT        runs nginx's workers, which clients reach: start it as another")
            say("              user, or give --state to one (chown -R): they run as its owner")


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Be the only gateway of a state folder. Raises UserError where another one is."""
    folder = state / "gateway"
    make_folder(state, folder)
    taken = f"--state {state}: a gateway uses it; stop that gateway, or give another --state"
    with alone(open_own(state, folder / "lock"), taken):
        yield


def parts(state: Path, settings: GatewaySettings) -> tuple[Nginx, Pair | None]:
    """Return the nginx of a state folder and the certificate that it answers with, if any."""
    nginx = Nginx(state / "gateway", WORKERS, settings.nginx)
    if settings.certificate and settings.certificate_key:
        both = settings.certificate, settings.certificate_key
        return nginx, Pair(*both, state, nginx.refusal)
    return nginx, None


def check(nginx: Nginx, settings: GatewaySettings, names: Sequence[str]) -> None:
    """Raise UserError where there is no nginx for it, or its folder or its port cannot be had."""
    nginx.check_folder(names)
    nginx.remove_failed_starts()
    if not nginx.running() and nginx.serial() is None:
        find_nginx(settings.nginx)
        claim_ports({"gateway": settings.port}, settings.address)


def run(nodes: Sequence[NodeSettings], state: Path, settings: GatewaySettings) -> None:
    """Run the gateway in the foreground until Ctrl-C."""
    try:
        with only_one(state), Supervisor(nodes, state, settings) as supervisor:
            say("Ctrl-C to stop")
            while True:
                supervisor.check_alive()
                time.sleep(1)
    except KeyboardInterrupt:
        say("stopped")
