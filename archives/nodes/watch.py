"""One node watched from the gateway: its token passed on, its versions kept as the journal says.

A node that was missing gets traffic again only when it serves exactly those versions, from the
releases' bytes and with the stable one as default.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from archives.nodes import owner
from archives.nodes.nodes import Node, OtherBytesError
from archives.state import tokens_and_keys
from archives.state.journal import Desired, Release
from sonode.console import UserError

logger = logging.getLogger(__name__)

TOKEN_S = 0.2  # how often a node's key file is looked at
PROBE_S = 1.0
TAKE_S = 10.0  # how often the note of ownership is renewed
FAILURES = 2  # probes without an answer that take a node out; a refused connection does at once
NOT_YET = "not asked yet"
RETRY_S = 5.0  # between attempts to bring a node's versions back
AT_ONCE_S = 0.5  # so long a look at a node that is in line may take, at most, for it to come in now


@dataclass(frozen=True)
class Seen:
    """What is known of a node."""

    up: bool = False
    """It serves exactly what it should, or did when it came in and still serves `stable`."""
    why: str = NOT_YET
    """Why it is not up."""
    ready: frozenset[str] = frozenset()
    """Versions with a ready worker."""
    barred: bool = False
    """It serves other bytes than the releases': it is not asked, whoever else is there."""


class Watch(threading.Thread):
    """Looks after one node in the background; `seen` is replaced as a whole."""

    def __init__(self, node: Node, state: Path, desired: Callable[[], Desired]) -> None:
        super().__init__(name=f"node {node.name}", daemon=True)
        self.node = node
        self.seen = Seen()
        self.speaks_open_inference: bool | None = None
        """What its last server said of itself; None: nothing (yet)."""
        self._state = state
        self._desired = desired
        self._ended = threading.Event()
        self._mending: Future[Release | None] | None = None
        self._settled: Release | None = None  # the node was last brought in line for this `stable`
        # Names the TorchServe that has loaded other bytes, by the key that it made at its start: it
        # keeps them, whatever its store has by now.
        self._refused = ""
        self._mended = ""  # the same of the one that is being brought in line
        self._odd: set[str] = set()
        self._mend_at = 0.0
        self._trouble = ""
        self._failures = 0
        self._token = ""
        self._asked = ""  # the server that has said what it speaks, by its key

    def run(self) -> None:
        """Watch until `end`; the thread's own."""
        probe_at = take_at = 0.0
        logged = ""
        while not self._ended.wait(TOKEN_S):
            try:
                if time.monotonic() >= take_at:
                    whose = owner.take(self.node.settings.run_dir, self._state)
                    # A standby has the node a second after it is free.
                    take_at = time.monotonic() + (PROBE_S if whose else TAKE_S)
                if whose:
                    self.seen = Seen(why=f"belongs to the gateway of {whose}", barred=True)
                    continue
                self._pass_token_on()
                if time.monotonic() >= probe_at:
                    self.seen = self._probe()
                    probe_at = time.monotonic() + PROBE_S
            except Exception as fault:  # one node's answers end no gateway
                if repr(fault) != logged:
                    logged = repr(fault)
                    logger.exception("node %s: its answers cannot be made out", self.node.name)
                self.seen = Seen(why="answers what cannot be made out")
                self._ended.wait(PROBE_S)
        owner.release(self.node.settings.run_dir, self._state)

    def end(self) -> None:
        """Stop; what is being registered is left to TorchServe."""
        self._ended.set()
        self.join()

    def _pass_token_on(self) -> None:
        with suppress(httpx.HTTPError, OSError, ValueError, KeyError):  # the probe reports it
            token = self.node.token()
            path = self._state / "gateway" / f"{self.node.name}.token"
            if token != self._token or not path.exists():
                tokens_and_keys.write_token(self._state, self.node.name, token)
                self._token = token

    def _probe(self) -> Seen:
        desired = self._desired()
        if not self.seen.up:
            self._settled = None  # it may be another TorchServe by now
        try:
            if not self.node.healthy():
                raise httpx.RemoteProtocolError("not healthy")
            there = self.node.versions(desired.model) if desired.model else {}
            self._ask_what_it_speaks()
        except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
            self._failures += 1
            gone = isinstance(error, httpx.ConnectError | FileNotFoundError)
            if self.seen.up and not gone and self._failures < FAILURES:
                return self.seen
            return Seen(why="does not answer", barred=bool(self._refused))
        self._failures = 0
        if self._refused and self._refused == self._key():
            return Seen(why=self._trouble, barred=True)
        self._refused = ""
        ready = frozenset(version for version, workers in there.items() if workers)
        # Another server, started between two probes, may have loaded anything.
        replaced = bool(self._mended) and self._key() not in ("", self._mended)
        if desired.stable is None or desired.model is None:
            return Seen(up=True)  # nothing to serve yet
        wanted = {release.version for release in desired.serves}
        if (coming := _coming(desired)) and coming.version in there:
            del there[coming.version]  # not the gateway's yet: a rollout registers and checks it
            ready -= {coming.version}
        stays = self.seen.up and desired.stable.version in ready and not replaced
        odd = set(there) - wanted
        # What a rollout left behind; not what the next one has registered a moment ago.
        left = bool(odd) and odd == self._odd and desired.rollout is None
        self._odd = odd
        # A node that is in stays in for what it can do: a candidate that fails to start must not
        # take the stable version's nodes away, nor is undone what a rollout is just registering.
        fits = ready == wanted == set(there) or (stays and wanted <= set(there) and not left)
        self._harvest()
        if replaced:
            self._settled = None
        if not (fits and self._settled == desired.stable):
            self._mend(desired, stays)
        if fits and self._settled == desired.stable:
            return Seen(True, "", ready)
        return Seen(stays, self._matter(wanted - ready, odd), ready)

    def _ask_what_it_speaks(self) -> None:
        """Ask each server once, and again until it says yes or no."""
        new = (key := self._key()) != self._asked
        if new or self.speaks_open_inference is None:
            self.speaks_open_inference = self.node.speaks_open_inference()
            self._asked = key
            if new and self.speaks_open_inference is None:
                logger.warning(
                    "node %s: its /v2/health/live answers neither 200 nor 404: it gets no requests "
                    "of the Open Inference Protocol until it does; see the node's logs",
                    self.node.name,
                )

    def _mend(self, desired: Desired, stays: bool) -> None:
        """Bring the versions, their bytes and the default in line, beside the watching."""
        if self._mending is None and time.monotonic() >= self._mend_at:
            self._mending = Future()
            self._mended = self._key()
            # Also where it was in when this command started: while none ran, nobody looked.
            prove = not stays or self._settled is None
            # A thread that the end of the process does not wait for: to register takes minutes.
            threading.Thread(
                target=self._ensure, args=[desired, prove, self._mending], daemon=True
            ).start()
            if not stays:
                wait([self._mending], AT_ONCE_S)
                self._harvest()

    def _harvest(self) -> None:
        if self._mending is not None and self._mending.done():
            error = self._mending.exception()
            # Of a server that has been restarted since, it says nothing.
            same = self._mended == self._key()
            self._settled = self._mending.result() if same and not error else None
            self._mending = None
            self._mend_at = time.monotonic() + (RETRY_S if error else 0)
            self._trouble = _in_words(error) if error else ""
            self._refused = self._mended if isinstance(error, OtherBytesError) else ""

    def _key(self) -> str:
        """Which TorchServe it is: a key that it makes at its start, or the last known one."""
        with suppress(OSError, ValueError, KeyError):  # it is being written
            return self.node.token("api")
        return self._refused

    def _matter(self, missing: set[str], odd: set[str]) -> str:
        """Why the node is not in line."""
        reasons = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        reasons += [f"also serves {', '.join(sorted(odd))}"] if odd else []
        reasons += [self._trouble] if self._trouble else []
        return "; ".join(reasons) or "is being checked"

    def _ensure(self, desired: Desired, prove: bool, done: Future[Release | None]) -> None:
        def wanted() -> bool:
            now = self._desired()
            same = (now.stable, now.serves, _coming(now)) == (
                *(desired.stable, desired.serves, _coming(desired)),
            )
            return same and not self._ended.is_set()

        assert desired.model and desired.stable
        try:
            self.node.ensure(
                desired.model, desired.stable, desired.serves, wanted, _coming(desired), prove=prove
            )
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(desired.stable if wanted() else None)


def _coming(desired: Desired) -> Release | None:
    return desired.candidate if desired.step == "register" else None


def _in_words(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, httpx.HTTPStatusError):
        return f"TorchServe refused with {error.response.status_code}; see the node's logs"
    return f"{type(error).__name__} while it was brought in line"
