"""What a client may ask, as the nginx configuration that says so.

A request takes two hops in one nginx: the side that clients reach decides who may ask and which
version answers; a side for each node adds that node's own token and logs each attempt. In the state
folder: `journal.jsonl`, `archives/` (the .mar files of all releases), keys and tokens (see
`archives.state.tokens_and_keys`); in `gateway/` what nginx needs and writes.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
import resource
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from archives.gateway.certificate import Pair
from archives.gateway.configuration.settings import GatewaySettings, torchserve_number
from archives.nodes.nodes_file import NodeSettings
from archives.packing.members import NAME
from archives.state import files
from archives.state.journal import Desired, Release
from sonode.console import UserError

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).resolve().parent
WORKERS = 2  # nginx needs little; two, so that one that dies takes half along
MIRRORED_AT_ONCE = 4  # shadows under way; what comes meanwhile is not mirrored, and counted
RELEASED = "released"
"""In `gateway/` while a version on trial may answer: see `archives/rollout/traffic_permit.py`."""
LINGER_S = 2  # how long an idle connection outlives a change of the configuration
DESCRIPTORS = 65536  # of each worker; a request has up to four, callers without a token have one


def render(
    desired: Desired,
    nodes: Sequence[NodeSettings],
    ready: Mapping[str, Sequence[str]],
    barred: Collection[str],
    speak: Mapping[str, bool | None],
    addresses: Mapping[str, Sequence[str]],
    settings: GatewaySettings,
    pair: Pair | None,
    state: Path,
    sockets: Path,
    faults: Sequence[str] = (),
    *,
    module: str = "",
    draining: bool = False,
) -> tuple[str, str]:
    """Return nginx's configuration and its serial, a digest that it answers at its own socket.

    `ready` names the nodes that can answer for `stable` and `candidate`. Where none can, those are
    asked that can answer for `stable`, else all but the `barred`: what is known of them may be
    wrong, and they say themselves what is the matter. Of these, requests of the Open Inference
    Protocol go to those alone that `speak` it (None: not known); where there is none the gateway
    refuses them itself, so that they say nothing of a version.
    `addresses` has what each node's HOST:PORT stands for, nothing where its name is unknown.
    `faults` of the gateway itself stand in the answer of `/health`. `module` is that of njs, where
    nginx has to load it. `draining`: clients are met no more, and what is under way still finds its
    way to the nodes.
    """
    names = [node.name for node in nodes if node.name not in barred]
    asked = {"stable": ready.get("stable") or names}
    if desired.candidate:
        # A moment after it was registered nobody is known to have it: not a node that is away.
        asked["candidate"] = ready.get("candidate") or ready.get("stable") or names
    arms = {arm: _twice(found) for arm, found in asked.items()}
    for arm, found in asked.items():
        arms[f"{arm}-v2"] = _twice([name for name in found if speak.get(name)])
    releases = [it for it in (desired.stable, desired.candidate) if it]
    for name in [desired.model or "none", *(release.version for release in releases)]:
        assert NAME.fullmatch(name), "archives are packed with such names only"
    assert re.fullmatch(r"[A-Za-z0-9_.-]*", desired.salt), "a rollout's id"
    judged, old = on_trial(desired)
    facts = {
        "judged": judged,
        "old": old,
        "at_node": torchserve_number("job_queue_size") // WORKERS,
        "mirrored_at_once": MIRRORED_AT_ONCE // WORKERS,
        "user": workers_user(state) if os.geteuid() == 0 else None,
        "workers": WORKERS,
        "descriptors": min(DESCRIPTORS, _hard_limit()),
        "draining": draining,
        "module": module,
        "health": json.dumps({"status": "ok"} | ({"faults": list(faults)} if faults else {})),
        "linger_s": LINGER_S,
        "folder": state.resolve() / "gateway",
        "state": state.resolve(),
        "folder_of_js": FOLDER,
        "sockets": sockets,
        "settings": settings,
        "pair": pair,
        "desired": desired,
        "canary": desired.percent if desired.candidate else 0,
        "shadow": desired.shadow_percent if desired.candidate else 0,
        "arms": arms,
        "healthy": bool(desired.stable and ready.get("stable")),
        "v2_ready": bool(desired.stable and ready.get("stable") and arms["stable-v2"]),
        "may_speak": any(speak.get(node.name) is not False for node in nodes),
        "silent": [arm for arm in asked if not arms[f"{arm}-v2"]],
        "nodes": [
            {
                "name": node.name,
                "addresses": addresses.get(authority(node), ()),
                "key_file": _for_nginx(node.run_dir / "key_file.json"),
            }
            for node in nodes
        ],
    }
    text = _template().render(**facts, serial="SERIAL")
    serial = hashlib.sha256(text.encode()).hexdigest()
    return text.replace('"SERIAL"', f'"{serial}"'), serial


def _for_nginx(path: Path) -> str:
    """A path as nginx has it between quotes; nothing for one that would end them."""
    return str(path) if re.fullmatch(r"[^\"\\$\n]*", str(path)) else ""


def _hard_limit() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return DESCRIPTORS if hard == resource.RLIM_INFINITY else hard


def workers_user(state: Path) -> str:
    """Return the user and group, as nginx has them, of its workers where root starts it.

    It is the state folder's owner, as of all files in it. Raises UserError for one without a name.
    """
    number = files.owner(state)
    try:
        user = pwd.getpwuid(number)
        return f"{user.pw_name} {grp.getgrgid(user.pw_gid).gr_name}"
    except KeyError:
        raise UserError(
            f"--state {state}: belongs to user {number}, who has no name here, as nginx needs it: "
            "start the gateway as that user, not as root, or give the folder to another one"
        ) from None


def on_trial(desired: Desired) -> tuple[Release | None, Release | None]:
    """Return the version that clients meet before it is trusted, and the one it would replace."""
    if desired.rollout is None:
        return None, None
    if desired.candidate:
        return (desired.candidate, desired.stable) if desired.percent else (None, None)
    others = [it for it in desired.serves if it != desired.stable]
    return (desired.stable, others[0]) if others else (None, None)


def authority(node: NodeSettings) -> str:
    """HOST:PORT of the node's predictions."""
    return node.inference.removeprefix("http://")


def _twice(names: Sequence[str]) -> list[str]:
    """A lone node is there twice, so that what a dying worker held is tried at another one."""
    return [*names, *names] if len(names) == 1 else list(names)


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["regex"] = re.escape
    return environment.get_template("nginx.conf.j2")
