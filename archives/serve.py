"""`sonode serve`: the archives of a store behind one TorchServe, in the foreground."""

from __future__ import annotations

import json
import shlex
import signal
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from archives.node import TorchServeNode
from sonode_console import UserError, say


def archives_in(store: Path) -> dict[str, str]:
    """Return the archives of a store: model name -> file name.

    Raises UserError for a store that holds none, one that is torn, or two of one model: which of
    two versions answers is not to be decided by the order of file names.
    """
    found: dict[str, str] = {}
    for archive in sorted(store.glob("*.mar")):
        try:
            with zipfile.ZipFile(archive) as opened:
                manifest = json.loads(opened.read("MAR-INF/MANIFEST.json"))
            name = str(manifest["model"]["modelName"])
        except (zipfile.BadZipFile, KeyError, ValueError):
            raise UserError(
                f"{archive} is not a whole archive: remove it, or make it again with `sonode pack`"
            ) from None
        if name in found:
            raise UserError(
                f"{store} holds two archives of model {name}, {found[name]} and {archive.name}: "
                f"say what to serve, e.g. --models {name}={archive.name}"
            )
        found[name] = archive.name
    if not found:
        raise UserError(f"{store} holds no archive (*.mar): make one with `sonode pack`")
    return found


def serve(
    store: Path,
    models: Sequence[str] = (),
    *,
    inference_port: int = 8080,
    management_port: int = 8081,
    metrics_port: int = 8082,
    run_dir: Path | None = None,
) -> None:
    """Serve archives of a store until Ctrl-C or SIGTERM, then return.

    `models` holds `NAME=FILE` items; empty: every archive of the store under its own name. Logs
    and the token file go to `run_dir` (`runs/serve-PORT` if None). Raises UserError when the node
    cannot start or ends by itself.
    """
    chosen = _parse_models(models) if models else archives_in(store)
    node = TorchServeNode(
        store,
        chosen,
        run_dir or Path("runs") / f"serve-{inference_port}",
        inference_port=inference_port,
        management_port=management_port,
        metrics_port=metrics_port,
    )
    # Both end like Ctrl-C, through the node's clean-up: at SIGTERM from a supervisor, and at SIGHUP
    # from a terminal that closes.
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with node:
            _say_how_to_call(node)
            while True:
                node.check_alive()
                # Renewed here so that whoever reads the key file finds a token that is good.
                node.token("inference")
                node.token("management")
                time.sleep(1)
    except KeyboardInterrupt:
        say("stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parse_models(items: Sequence[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for item in items:
        name, equals, file = item.partition("=")
        if not (name and equals and file):
            raise UserError(f"--models {item} is not NAME=FILE: e.g. --models lesion=lesion-1.mar")
        if name in chosen:
            raise UserError(f"--models names {name} twice: give the second another name")
        chosen[name] = file
    return chosen


def _say_how_to_call(node: TorchServeNode) -> None:
    say("serving " + ", ".join(f"{name} ({file})" for name, file in node.models.items()))
    say(f"  inference   {node.inference_url}/predictions/NAME")
    say(f"  management  {node.management_url}")
    say(f"  metrics     {node.metrics_url} (no token)")
    say(f"  tokens      {node.key_file} (renewed every hour: read them at each use)")
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
    say("Ctrl-C stops it")
