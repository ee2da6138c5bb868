from __future__ import annotations

import math

import numpy as np
import pytest

from batch.report import drift
from train.fitting.calibration.calibrate import SCORE_BINS


def test_bins_are_closed_below_and_the_last_one_on_both_sides() -> None:
    counts = drift.histogram([0.0, 0.049, 0.05, 0.5, 0.999, 1.0])
    assert {n: count for n, count in enumerate(counts) if count} == {0: 2, 1: 1, 10: 1, 19: 2}


def test_psi_by_hand() -> None:
    # Five scores, spread as the two together (half and half), beside the four of each: shares of
    # 3.5 and 5.5 ninths against 5.5 and 3.5.
    assert drift.psi([1, 3], [3, 1]) == pytest.approx(4 / 9 * math.log(5.5 / 3.5))
    assert drift.psi([5, 7, 0], [5, 7, 0]) == 0
    assert math.isfinite(drift.psi([0, 9], [9, 0]))
    # Bins that are empty in both say nothing, however many scores there are: half a score in each
    # was 1 % of forty scores and nothing of many, which made 0.8 of equal shares.
    assert drift.psi([12, *[0] * 18, 28], [30_000, *[0] * 18, 70_000]) == 0


def test_psi_by_chance_is_that_of_the_bins_that_are_filled() -> None:
    # Two clusters are one degree of freedom: about 1/n + 1/m, not 19 times as much; 1 of 100
    # exceeds 6.63 times that (chi-squared).
    found = drift.compared([300, *[0] * 18, 700], [1200, *[0] * 18, 2800])
    expected = 1 / 1000 + 1 / 4000
    assert found["psi_by_chance"] == pytest.approx(expected, rel=0.15)
    assert found["psi_alarm"] == pytest.approx(drift.SHIFTED + expected, rel=0.01)
    few = drift.compared([1] * 20, [1] * 20)  # what 1 of 100 exceeds is more than that
    assert few["psi_alarm"] > drift.SHIFTED + few["psi_by_chance"] > drift.SHIFTED
    assert drift.compared([5, 5], [50, 50]) == drift.compared([5, 5], [50, 50])


def alarms(reference: int, rows: int, before: float, after: float) -> float:
    """How often scores in two clusters alarm where the upper one's share goes from one to another.

    A bin's share within its cluster: 5, 10, 20, 30, 35 %, the outermost bins the fullest.
    """
    generator = np.random.default_rng(0)
    low = np.array([35, 30, 20, 10, 5, *[0] * 15]) / 100
    shares = [(1 - share) * low + share * low[::-1] for share in (before, after)]
    found = 0
    for _ in range(200):
        told = drift.compared(
            generator.multinomial(reference, shares[0]).tolist(),
            generator.multinomial(rows, shares[1]).tolist(),
        )
        found += told["psi"] > told["psi_alarm"]
    return found / 200


@pytest.mark.parametrize("reference", [40, 100, 1000])
def test_the_alarm_is_neither_false_nor_deaf_on_scores_in_two_clusters(reference: int) -> None:
    """A share of .7 for .3 is a PSI of .68; .4 for .3 one of .04, which nobody calls shifted.

    Before, .3 for .3 alarmed in 30 % of the runs with 40 scores in the reference.
    """
    assert alarms(reference, 20_000, 0.3, 0.3) <= 0.05
    assert alarms(reference, 20_000, 0.3, 0.4) <= 0.08
    assert alarms(reference, 20_000, 0.3, 0.7) >= 0.65


def test_ks_by_hand() -> None:
    assert drift.ks([1, 3], [3, 1]) == 0.5
    assert drift.ks([2, 2, 0], [20, 0, 20]) == 0.5
    assert drift.ks([1, 0], [0, 8]) == 1


def test_scores_are_counted_in_the_bins_of_the_archives_reference() -> None:
    """The batch reads no training code, so the number stands in both."""
    assert drift.BINS == SCORE_BINS
