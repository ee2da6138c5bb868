"""A server and the gateway of one machine, started together by `sonode serve --gateway-port`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from archives.gateway.configuration.settings import GatewaySettings
from archives.gateway.supervisor import Supervisor, check, only_one, parts
from archives.nodes.nodes_file import NodeSettings
from archives.nodes.stores import copy_whole, is_other
from archives.packing.members import file_sha256, read_members
from archives.state.files import make_folder, write_private
from archives.state.journal import Journal, Release, fold
from archives.torchserve.server_node import ServerNode
from sonode.console import UserError

NAME = "local"
"""Of the node, for `sonode rollout`."""


def journalled(state: Path) -> dict[str, str]:
    """Return what the journal has TorchServe start with, model name -> file; empty: nothing yet.

    Further versions are registered by the gateway, which looks at their bytes then.
    """
    desired = fold(Journal(state).entries())
    if desired.model is None or desired.stable is None:
        return {}
    return {desired.model: desired.stable.file}


def check_bytes(state: Path, store: Path) -> None:
    """Raise UserError where the store has other bytes under the name of what the journal serves."""
    stable = fold(Journal(state).entries()).stable
    if stable and is_other(stable, store / stable.file):
        raise UserError(
            f"--store {store}: {stable.file} is not the archive that the journal in {state} serves "
            f"(sha256 {stable.sha256[:12]}): copy {state / 'archives' / stable.file} there; for "
            "another one, pack it under its own version and use `sonode rollout start`"
        )


def check_first(models: Mapping[str, str], state: Path, settings: GatewaySettings) -> None:
    """Raise UserError for a gateway that could not start, before its node takes the time to."""
    if len(models) != 1:
        raise UserError(
            f"--gateway-port: a gateway has one model, not {len(models)} "
            f"({', '.join(models)}); name it with --models NAME=FILE"
        )
    with only_one(state):
        nginx, pair = parts(state, settings)
        check(nginx, settings, [NAME])
        if pair:
            pair.look()


def settings_of(node: ServerNode) -> NodeSettings:
    """Return what `nodes.yaml` would say of a running node of this machine."""
    return NodeSettings(
        name=NAME,
        inference=node.inference_url,
        management=node.management_url,
        run_dir=node.run_dir,
        store=node.store,
    )


@contextmanager
def gateway_before(
    node: ServerNode, settings: GatewaySettings, state: Path
) -> Iterator[Supervisor]:
    """Run a gateway before a running node until the block ends.

    A journal that is empty gets its first entry: the one model that the node serves.
    `state/nodes.yaml` is written for `sonode rollout`. Raises UserError where it cannot start.
    """
    ((model, file),) = node.models.items()
    only = settings_of(node)
    with only_one(state):
        if not journalled(state):
            _first_entry(state, model, node.store / file)
        nodes = {"nodes": [only.model_dump(mode="json", exclude_none=True)]}
        text = yaml.safe_dump(nodes, sort_keys=False)
        write_private(state, state / "nodes.yaml", text.encode())
        with Supervisor([only], state, settings) as supervisor:
            yield supervisor


def _first_entry(state: Path, model: str, archive: Path) -> None:
    manifest, _ = read_members(archive)
    version = str(manifest["model"]["modelVersion"])
    release = Release(version, archive.name, file_sha256(archive))
    make_folder(state, state / "archives")
    copy_whole(archive, state / "archives" / archive.name)
    journal = Journal(state)
    with journal.lock():
        journal.append("deployed", rollout=None, model=model, stable=release, serves=[release])
