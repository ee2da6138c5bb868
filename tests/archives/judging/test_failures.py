"""archives/judging/failures.py: how failures are counted, by hand and simulated."""

import math
import random

import numpy as np
import pytest

from archives.judging.failures import Against, Bursts, Units, Windows
from archives.judging.fisher import more_by_chance
from archives.judging.sequential import BETS


def row(t: float, status: int = 200, **facts: object) -> dict[str, object]:
    code = "ok" if status == 200 else "unavailable"
    return {"t": t, "status": status, "code": code, "study": "", "client": "c"} | facts


def test_a_burst_is_news_once_and_a_code_of_the_handler_is_always():
    bursts = Bursts()
    assert [bursts.is_news(t, signed=False) for t in (1, 2, 5.9, 6, 10)] == [
        *(True, False, False, True, False)
    ]
    assert bursts.is_news(10, signed=True)
    assert bursts.is_news(-600, signed=False)  # the clock was set back


def test_units_by_hand():
    units = Units(5.0)
    for t, study, value in ((0, "a", 1), (1, "a", 0), (2, "", 1), (4, "b", 0), (4.9, "a", 0)):
        units.take(row(t, study=study)).add("failed", value)
    assert list(units.over(4.9)) == []
    assert [unit.share("failed") for unit in units.over(5.0)] == [pytest.approx(1 / 3)]
    assert units.take(row(5, study="a")) is None
    assert [unit.share("failed") for unit in units.over(9.0)] == [1, 0]
    assert units.take(row(9.5)).share("failed") is None  # the client's next one
    assert units.closed == 3
    assert len(list(units.over(-600))) == 1


def test_windows_by_hand():
    windows = Windows(0.01)
    for t, failed in ((0, 0), (1, 1), (2, 1), (4.9, 0), (5, 1), (9, 0)):
        windows.add(t, failed)
    assert (windows.test.n, windows.test.total) == (1, 0.5)  # the last one is open


@pytest.mark.parametrize("size", [1, 20])
def test_false_alarms_of_windows_at_the_limit(size):
    alarms, runs, alpha, chance = 0, 200, 0.05, random.Random(size)
    for _ in range(runs):
        windows, alarm = Windows(0.05), False
        for number in range(200 * size):
            windows.add(5.0 * number / size, chance.random() < 0.05)
            alarm |= windows.test.log_evidence >= math.log(1 / alpha)
        alarms += alarm
    assert alarms / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_against_an_old_version_that_fails_too_by_hand():
    def bets(limit: float, odds: float = 1.0) -> np.ndarray:
        found = odds * np.geomspace(1.1, 1000, BETS) * limit / (1 - limit)
        return (found / (1 + found) - limit) / (limit * (1 - limit))

    against = Against(0.2)  # a canary: each study is of one of the two
    for new, old in ((0.5, None), (None, 0.1), (1.0, None), (0.0, None), (None, 0.0)):
        against.add(new, old)
    expected = np.mean((1 + bets(0.2) * 0.8) ** 2 * (1 - bets(0.2) * 0.2))
    assert (against.test.n, against.test.mean) == (3, pytest.approx(2 / 3))
    assert against.test.log_evidence == pytest.approx(math.log(expected))
    against = Against(0.5)  # a shadow: both get each
    for new, old in ((0.75, 0.25), (1.0, 1.0), (0.0, 0.0), (0.0, 0.3)):
        against.add(new, old)
    expected = np.mean((1 + bets(0.5) * 0.25) * (1 - bets(0.5) * 0.5))
    assert against.test.n == 2  # what both do alike tells nothing
    assert against.test.log_evidence == pytest.approx(math.log(expected))
    # Twice the odds: of 4 failing studies 2 where a third of the studies are its own.
    assert Against(1 / 3, odds=2).test.limit == pytest.approx(0.5)


def test_as_many_is_fishers_exact_test():
    # Of 4 failing studies in 100 and 100, 3 or more are the new one's: (C(100,3) C(100,1) +
    # C(100,4)) / C(200,4).
    by_hand = (math.comb(100, 3) * 100 + math.comb(100, 4)) / math.comb(200, 4)
    assert more_by_chance(3, 100, 1, 100) == pytest.approx(by_hand)
    assert more_by_chance(0, 10, 5, 10) == pytest.approx(1.0)
    for new, old, excused in ((3, 1, False), (5, 1, False), (2, 2, True), (1, 0, False)):
        against = Against(0.5)
        for number in range(100):
            against.add(float(number < new), float(number < old))
        assert against.as_many == excused


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_versions_that_fail_alike_are_hardly_ever_separated(share: float):
    """Studies fail as a whole, or in part; a part of them goes to the new version."""
    chance, alpha, runs, alarms = random.Random(3), 0.1, 200, 0
    for _ in range(runs):
        against, alarm = Against(share), False
        for _ in range(300):
            fails = chance.choice([1.0, 0.3]) if chance.random() < 0.2 else 0.0
            against.add(*((fails, None) if chance.random() < share else (None, fails)))
            alarm |= against.test.log_evidence >= math.log(1 / alpha)
        alarms += alarm
    assert alarms / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
