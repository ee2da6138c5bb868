"""`nodes.yaml`: the nodes behind a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from sonode.console import UserError
from sonode.files.settings import read_settings


def _with_port(url: str) -> str:
    if not 0 < (port := int(url.rpartition(":")[2])) < 2**16:
        raise ValueError(f"there is no port {port}")  # the system would take it modulo 65,536
    return url


Url = Annotated[
    str,
    StringConstraints(pattern=r"^http://[A-Za-z0-9.-]+:[0-9]{1,5}$"),
    AfterValidator(_with_port),
]


class NodeSettings(BaseModel):
    """One node of `nodes.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
    inference: Url
    """Base of the inference API, as in `http://127.0.0.1:8080`."""
    management: Url
    run_dir: Path
    """Holds TorchServe's key_file.json."""
    store: Path
    """Its model store; archives are copied there."""
    workers: int | None = Field(default=None, ge=1)
    """Of each version; by default what suits the gateway's own machine (see `plan`)."""
    batch_size: int | None = Field(default=None, ge=1)
    max_batch_delay_ms: int | None = Field(default=None, ge=1)


class Nodes(BaseModel):
    """`nodes.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: tuple[NodeSettings, ...] = Field(min_length=1)


def read_nodes(path: Path) -> tuple[NodeSettings, ...]:
    """Return the nodes of the file; relative folders in it are relative to it.

    Raises UserError for a file that is not there, or with anything in it that is not understood.
    """
    base = path.resolve().parent
    nodes = tuple(
        node.model_copy(update={"run_dir": base / node.run_dir, "store": base / node.store})
        for node in read_settings(path, Nodes, "--nodes", "see docs/gateway.md").nodes
    )
    for what in ("name", "inference", "management", "run_dir"):
        values = [getattr(node, what) for node in nodes]
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise UserError(f"--nodes {path}: {what} {twice} is given twice; each node has its own")
    return nodes
