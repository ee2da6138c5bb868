"""Rollouts between two real nodes and nginx, of either server, under a load that never stops.

`make rollouts` runs every scenario of `rollout_matrix.py`, those with kills beside the others and
with two nodes of their own (`test_rollout_kills.py`).
"""

from __future__ import annotations

import math
import os

import pytest

from tests.archives.rollout_matrix import (
    ESSENTIAL,
    RATE,
    SCENARIOS,
    Scenario,
    line,
    run,
)
from tests.archives.two_nodes import Cluster

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

FIRST, *OTHERS = ESSENTIAL
QUICK = [FIRST, *(pytest.param(its, marks=pytest.mark.slow) for its in OTHERS)]
ALL = os.environ.get("SONODE_TEST_ROLLOUTS") == "all"


@pytest.mark.parametrize(
    "scenario", SCENARIOS if ALL else QUICK, ids=lambda scenario: scenario.name
)
def test_a_rollout(cluster: Cluster, scenario: Scenario) -> None:
    is_judged_right(cluster, scenario)


def is_judged_right(cluster: Cluster, scenario: Scenario) -> None:
    outcome = run(cluster, scenario)
    cluster.lines.append(line(outcome))
    print(line(outcome), outcome.said, outcome.split, *outcome.broken, sep="\n")
    if not outcome.unanswered:  # who waits in vain sends less
        assert outcome.sent > RATE * outcome.seconds / 3  # they never stopped
    assert outcome.faults() == []
    for step, (new, studies) in outcome.split.items():
        p = float(step.split()[1]) / 100
        # Within four standard deviations of a binomial; 100 % leaves no room.
        assert abs(new - p * studies) <= 4 * math.sqrt(studies * p * (1 - p))
