"""The gateway before the nodes: what a client may ask, and the nginx configuration that says so.

A request takes two hops in one nginx: the side that clients reach decides who may ask and which
version answers; a side for each node adds that node's own token and logs each attempt. In the state
folder: `clients.json` (digests of the clients' tokens), `key` (of the study ids' hash), `archives/`
(the .mar files of all releases), `journal.jsonl`, and in `gateway/` what nginx needs and writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from archives.journal import Desired
from archives.node import CONFIG
from archives.nodes import NodeSettings
from sonode_console import UserError

ROOM = Path(__file__).resolve().parent
WORKERS = 2  # nginx needs little; two, so that one that dies takes half along
LINGER_S = 2  # how long an idle connection outlives a change of the configuration
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
TOKEN_BYTES = 32


class GatewaySettings(BaseModel):
    """How the gateway meets its clients."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", pattern=r"^[A-Za-z0-9.:\[\]*-]+$")
    """Address to listen on; `0.0.0.0` for all."""
    port: int = Field(8443, ge=1, le=65535)
    certificate: Path | None = None
    """PEM, with its chain; together with its key: TLS."""
    certificate_key: Path | None = None
    rate: int = Field(100, ge=1)
    """Requests a second of each client, and as many at once beyond them."""

    @model_validator(mode="after")
    def _both_or_none(self) -> GatewaySettings:
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("a certificate and its key: give both, or none")
        return self

    @property
    def listen(self) -> str:
        """As nginx has it."""
        return f"{self.host}:{self.port}"

    @property
    def max_body_bytes(self) -> int:
        """What TorchServe takes."""
        found = re.search(r"^max_request_size=(\d+)$", CONFIG.read_text(), re.MULTILINE)
        assert found
        return int(found[1])


def render(
    desired: Desired,
    nodes: Sequence[NodeSettings],
    ready: Mapping[str, Sequence[str]],
    settings: GatewaySettings,
    state: Path,
    sockets: Path,
) -> tuple[str, str]:
    """Return nginx's configuration and its serial, a digest that it tells at its own socket.

    `ready` names the nodes that can answer for `stable` and `candidate`. Where none can, all are
    asked: what is known of them may be wrong, and they say themselves what is the matter.
    """
    names = [node.name for node in nodes]
    arms = {"stable": _twice(ready.get("stable") or names)}
    if desired.candidate:
        arms["candidate"] = _twice(ready.get("candidate") or names)
    releases = [it for it in (desired.stable, desired.candidate) if it]
    for name in [desired.model or "none", *(release.version for release in releases)]:
        assert NAME.fullmatch(name), "archives are packed with such names only"
    assert re.fullmatch(r"[A-Za-z0-9_.-]*", desired.salt), "a rollout's id"
    certificates = [
        f"{path} of {path.stat().st_mtime_ns}"  # a renewed one is a change, too
        for path in (settings.certificate, settings.certificate_key)
        if path is not None
    ]
    facts = {
        "user": pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() == 0 else None,
        "workers": WORKERS,
        "linger_s": LINGER_S,
        "folder": state.resolve() / "gateway",
        "state": state.resolve(),
        "room": ROOM,
        "sockets": sockets,
        "settings": settings,
        "certificates": certificates,
        "desired": desired,
        "canary": desired.percent if desired.candidate else 0,
        "shadow": desired.shadow_percent if desired.candidate else 0,
        "arms": arms,
        "healthy": bool(desired.stable and ready.get("stable")),
        "nodes": [
            {"name": node.name, "authority": node.inference.removeprefix("http://")}
            for node in nodes
        ],
    }
    template = _template()
    serial = hashlib.sha256(template.render(**facts, serial="").encode()).hexdigest()
    return template.render(**facts, serial=serial), serial


def study_key(state: Path) -> bytes:
    """Return the key of the study ids' hash; made at the first call, and kept.

    With another key the hashes of one study no longer agree, nor does its side of a split.
    """
    path = state / "key"
    if not path.exists():
        _write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def add_client(state: Path, name: str) -> str:
    """Return a new token for this client, which is kept as a digest only; an old one is void.

    A gateway that runs takes it at once. Raises UserError for a name that it could not log.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"NAME {name!r}: use letters, digits, dots, dashes, underscores")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    _write_clients(state, clients(state) | {name: digest})
    return token


def remove_client(state: Path, name: str) -> None:
    """Void a client's token. Raises UserError where there is no such client."""
    known = clients(state)
    if name not in known:
        raise UserError(f"NAME {name}: no such client; there is {', '.join(known) or 'none'}")
    del known[name]
    _write_clients(state, known)


def clients(state: Path) -> dict[str, str]:
    """Return the clients: name -> SHA-256 of the token.

    Raises UserError for a file that others can read.
    """
    path = state / "clients.json"
    if not path.exists():
        return {}
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path}: others may read it; run `chmod 600 {path}`")
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _write_clients(state: Path, known: dict[str, str]) -> None:
    _write_private(state / "clients.json", json.dumps(known, indent=1).encode())


def write_token(state: Path, node: str, token: str) -> None:
    """Give nginx the node's token; it counts from the next request on."""
    _write_private(state / "gateway" / f"{node}.token", token.encode())


def _write_private(path: Path, data: bytes) -> None:
    """In one step, and for nobody else's eyes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    part.replace(path)


def _twice(names: Sequence[str]) -> list[str]:
    """A lone node is there twice, so that what a dying worker held is tried at another one."""
    return [*names, *names] if len(names) == 1 else list(names)


@cache
def _template():  # type: ignore[no-untyped-def]
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["regex"] = re.escape
    return environment.from_string((ROOM / "nginx.conf.j2").read_text())
