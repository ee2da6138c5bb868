"""What the live rollouts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archives.asgi.node import AsgiNode
from archives.torchserve.node import TorchServeNode
from tests.archives.rollout_matrix import HANG, HEADER, TURN
from tests.archives.two_nodes import Cluster
from tests.processes import assert_no_process_about


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(TorchServeNode, id="torchserve"),
        pytest.param(AsgiNode, id="asgi", marks=pytest.mark.slow),
    ],
)
def cluster(
    request: pytest.FixtureRequest, archive_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("site")
    with Cluster(folder, archive_path, request.param) as made:
        yield made
    for file in (TURN, HANG):
        file.unlink(missing_ok=True)
    assert_no_process_about(folder)
    print(f"\n{HEADER}", *made.lines, sep="\n")
