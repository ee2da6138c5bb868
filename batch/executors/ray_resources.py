"""What Ray reserves for each worker: CPUs, and a GPU or a part of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sonode.console import UserError


class Fleet(NamedTuple):
    """How many workers there are, and what Ray reserves for each."""

    workers: int
    cpus: int
    gpus: float


def fleet(
    nodes: Sequence[Mapping[str, float]], workers: int | None, cpus: int | None, gpus: float | None
) -> Fleet:
    """Divide a cluster among workers; what is None is chosen.

    `nodes`: the resources of each, as Ray names them ("CPU", "GPU"). One GPU for each worker where
    there are any, with its share of its node's CPUs; else one worker for each node, with all of
    them (where nodes differ, the smallest share of any). As many workers as fit at once. Raises
    UserError where not one does.
    """
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    if gpus > 1 and gpus % 1:
        raise UserError(f"--worker-gpus {gpus:g}: give an integer, or a fraction of one GPU")
    hosts = [node for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU", 0) >= 1]
    if cpus is None:
        shares = [
            node["CPU"] // max(1, node.get("GPU", 0) // gpus if gpus else 1) for node in hosts
        ]
        cpus = max(1, int(min(shares, default=1)))
    fitting = sum(
        int(min(node["CPU"] // cpus, node["GPU"] // gpus if gpus else node["CPU"]))
        for node in hosts
    )
    if not fitting:
        raise UserError(
            f"--worker-cpus {cpus}, --worker-gpus {gpus:g}: no Ray node has as many; give fewer"
        )
    return Fleet(workers or fitting, cpus, gpus)
