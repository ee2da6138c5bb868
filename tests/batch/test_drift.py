from __future__ import annotations

import math

import pytest

from batch import drift


def test_bins_are_closed_below_and_the_last_one_on_both_sides() -> None:
    counts = drift.histogram([0.0, 0.049, 0.05, 0.5, 0.999, 1.0])
    assert {n: count for n, count in enumerate(counts) if count} == {0: 2, 1: 1, 10: 1, 19: 2}


def test_psi_by_hand() -> None:
    # With half a score more in each bin: 0.3, 0.7 against 0.7, 0.3.
    assert drift.psi([1, 3], [3, 1]) == pytest.approx(0.8 * math.log(7 / 3))
    assert drift.psi([5, 7, 0], [5, 7, 0]) == 0
    assert math.isfinite(drift.psi([0, 9], [9, 0]))
    assert drift.psi_by_chance([1, 3], [3, 1]) == 0.5


def test_ks_by_hand() -> None:
    assert drift.ks([1, 3], [3, 1]) == 0.5
    assert drift.ks([2, 2, 0], [20, 0, 20]) == 0.5
    assert drift.ks([1, 0], [0, 8]) == 1
