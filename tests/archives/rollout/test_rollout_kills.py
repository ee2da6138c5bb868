"""Rollouts whose command, workers, nodes and gateway are killed; only `make rollouts` runs them."""

import pytest

from tests.archives.rollout.test_rollout_live import ALL, is_judged_right
from tests.archives.rollout_matrix import KILLS, Scenario
from tests.archives.two_nodes import Cluster

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not ALL, reason="make rollouts has them"),
]


@pytest.mark.parametrize("scenario", KILLS, ids=lambda scenario: scenario.name)
def test_a_rollout(cluster: Cluster, scenario: Scenario) -> None:
    is_judged_right(cluster, scenario)
