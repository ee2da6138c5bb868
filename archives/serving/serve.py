"""`sonode serve`: the archives of a store behind one server, in the foreground."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

import httpx

from archives.asgi.node import AsgiNode
from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.supervisor import Supervisor
from archives.packing.members import NAME, NAME_RULE, read_members
from archives.serving import serve_with_gateway
from archives.torchserve.java import HOST
from archives.torchserve.node import TorchServeNode
from archives.torchserve.server_node import ServerNode
from sonode.console import UserError, say
from sonode.defaults import INFERENCE_PORT, MANAGEMENT_PORT, METRICS_PORT, STATE

Server = Literal["torchserve", "asgi"]
NODES: dict[Server, type[ServerNode]] = {"torchserve": TorchServeNode, "asgi": AsgiNode}


def archives_in(store: Path) -> dict[str, str]:
    """Return the archives of a store: model name -> file name.

    Raises UserError for a store that holds none, one that is damaged, or two of one model: which
    of two versions answers is not to be decided by the order of file names.
    """
    found: dict[str, str] = {}
    for archive in sorted(store.glob("*.mar")):
        manifest, _ = read_members(archive)
        name = str(manifest["model"]["modelName"])
        if name in found:
            raise UserError(
                f"{store} has two archives of model {name}, {found[name]} and {archive.name}: "
                f"choose one, for example --models {name}={archive.name}"
            )
        found[name] = archive.name
    if not found:
        raise UserError(f"{store} has no archive (*.mar): make one with `sonode pack`")
    return found


def serve(
    store: Path,
    models: Sequence[str] = (),
    *,
    server: Server = "torchserve",
    engine: str | None = None,
    fallback: str | None = None,
    inference_port: int = INFERENCE_PORT,
    management_port: int = MANAGEMENT_PORT,
    metrics_port: int = METRICS_PORT,
    run_dir: Path | None = None,
    gateway: GatewaySettings | None = None,
    state: Path = STATE,
) -> None:
    """Serve archives of a store until Ctrl-C, then return.

    `models` holds `NAME=FILE` items; empty: every archive of the store under its own name. Logs
    and the token file go to `run_dir` (`runs/serve-PORT` if None). `engine` and `fallback` override
    the archives' own settings (see `handlers.settings`). With `gateway` there is one before it, and
    `state` says what both serve (see `one_machine`). Raises UserError for a damaged
    archive or one that is not the journal's, and when the node cannot start or ends by itself.
    """
    chosen = serve_with_gateway.journalled(state) if gateway else {}
    if chosen and models:
        raise UserError(
            f"--models: the journal in {state} says what is served; leave it out, and change it "
            "with `sonode rollout`"
        )
    if chosen:
        serve_with_gateway.check_bytes(state, store)
    else:
        chosen = _parse_models(store, models) if models else archives_in(store)
    if gateway:
        ports = inference_port, management_port, metrics_port
        if gateway.port in ports and gateway.address in (HOST, "localhost", "0.0.0.0", "::"):
            raise UserError(f"--gateway-port {gateway.port}: the server has it; give another")
        serve_with_gateway.check_first(chosen, state, gateway)
    node = NODES[server](
        store,
        chosen,
        run_dir or Path("runs") / f"serve-{inference_port}",
        inference_port=inference_port,
        management_port=management_port,
        metrics_port=metrics_port,
        handler={
            key: value
            for key, value in {"engine": engine, "fallback": fallback}.items()
            if value is not None
        },
    )
    try:
        with ExitStack() as running:
            running.enter_context(node)
            _say_how_to_call(node)
            parts: list[ServerNode | Supervisor] = [node]
            if gateway:
                before = serve_with_gateway.gateway_before(node, gateway, state)
                parts.append(running.enter_context(before))
            say("Ctrl-C stops it")
            while True:
                for part in parts:
                    part.check_alive()
                # Renewed here so that whoever reads the key file finds a token that is good.
                # Busy, away for a moment, or half-written: later.
                with suppress(httpx.HTTPError, OSError, ValueError, KeyError):
                    node.token("inference")
                    node.token("management")
                time.sleep(1)
    except KeyboardInterrupt:
        say("stopped")


def _parse_models(store: Path, items: Sequence[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for item in items:
        name, equals, file = item.partition("=")
        if not (name and equals and file):
            raise UserError(f"--models {item}: give NAME=FILE, for example lesion=lesion-1.mar")
        if not NAME.fullmatch(name):  # as in the manifest of an archive
            raise UserError(f"--models {item}: for NAME {NAME_RULE}")
        if name in chosen:
            raise UserError(f"--models names {name} twice: give the second another name")
        chosen[name] = file
    for file in chosen.values():
        read_members(store / file)  # TorchServe would report a damaged one in its log only
    return chosen


def _say_how_to_call(node: ServerNode) -> None:
    say("serving " + ", ".join(f"{name} ({file})" for name, file in node.models.items()))
    say(f"  inference   {node.inference_url}/predictions/NAME")
    say(f"  management  {node.management_url}")
    say(f"  metrics     {node.metrics_url} (no token)")
    say(f"  tokens      {node.key_file} (renewed every hour: read the file for each request)")
    say(f"  logs        {node.run_dir / 'logs'}")
    # Through a pipe: an argument of curl would show the token in every list of processes.
    header = (
        "import json, sys; "
        'print("Authorization: Bearer " + json.load(open(sys.argv[1]))["inference"]["key"])'
    )
    url = f"{node.inference_url}/predictions/{next(iter(node.models))}"
    say("score an image:")
    say(
        f"  python3 -c {shlex.quote(header)} {shlex.quote(str(node.key_file))} "
        f"| curl --noproxy '*' -H @- -T image.png {url}"
    )
