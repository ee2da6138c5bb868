"""Rollouts between two nodes of the second server, as those between two of TorchServe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archives.asgi.node import AsgiNode
from tests.archives.rollout.test_rollout_live import ALL, QUICK, is_judged_right
from tests.archives.rollout_matrix import HANG, KILLS, SCENARIOS, TURN, Scenario
from tests.archives.two_nodes import Cluster
from tests.processes import assert_no_process_about

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(archive_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("site")
    with Cluster(folder, archive_path, AsgiNode) as made:
        yield made
    for file in (TURN, HANG):
        file.unlink(missing_ok=True)
    assert_no_process_about(folder)


@pytest.mark.parametrize(
    "scenario", (*SCENARIOS, *KILLS) if ALL else QUICK, ids=lambda scenario: scenario.name
)
def test_a_rollout_on_the_second_server(cluster: Cluster, scenario: Scenario) -> None:
    is_judged_right(cluster, scenario)
