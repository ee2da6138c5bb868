"""Addresses of the nodes' names: nginx would refuse a configuration with an unknown name.

A name that cannot be looked up keeps its last addresses, also over a restart. One that never had
any has none: its node counts as not answering, and the others go on.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from archives.state.files import write_private

logger = logging.getLogger(__name__)

LOOK_S = 5.0
_KEPT = TypeAdapter(dict[str, list[str]])


class Addresses(threading.Thread):
    """Looks names up in the background; `found` is replaced as a whole.

    `authorities` are HOST:PORT; `found` has for each what nginx may connect to.
    """

    def __init__(self, authorities: Iterable[str], state: Path) -> None:
        super().__init__(name="addresses", daemon=True)
        self.found: dict[str, list[str]] = {}
        self._authorities = list(authorities)
        self._state = state
        self._path = state / "gateway" / "addresses.json"
        self._unknown: set[str] = set()
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until `end`; the thread's own."""
        while not self._ended.wait(LOOK_S):
            self.look()

    def end(self) -> None:
        """Stop; a look-up that hangs is not waited for."""
        self._ended.set()

    def look(self) -> None:
        """Look all names up."""
        known = self.found or self._kept()
        found = {}
        for authority in self._authorities:
            host, _, port = authority.rpartition(":")
            try:
                answers = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:  # the latter for a label too long for DNS
                found[authority] = known.get(authority, [])
                if authority not in self._unknown:
                    logger.error(
                        "the name of a node, %s, cannot be looked up (%s): %s",
                        *(host, getattr(error, "strerror", None) or "no such name"),
                        "it keeps its address" if found[authority] else "the node is left out",
                    )
                self._unknown.add(authority)
            else:
                self._unknown.discard(authority)
                # nginx refuses an address of one link (fe80::1%eth0), as mDNS gives them.
                hosts = [it[4] for it in answers if "%" not in str(it[4][0])]
                found[authority] = sorted(map(_for_nginx, {*hosts}))
                if set(known.get(authority, [])) & set(found[authority]):
                    # Still right: answers that rotate are no reason for another configuration.
                    found[authority] = known[authority]
        if found != self.found:
            with suppress(OSError):  # a full disk: it would help at the next start only
                write_private(self._state, self._path, json.dumps(found, indent=1).encode())
        self.found = found

    def _kept(self) -> dict[str, list[str]]:
        try:
            return _KEPT.validate_json(self._path.read_bytes())
        except (OSError, ValueError):  # the first start
            return {}


def _for_nginx(address: tuple[object, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
