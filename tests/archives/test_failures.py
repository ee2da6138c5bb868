"""archives/failures.py: how failures are counted, by hand and simulated."""

import math
import random

import numpy as np
import pytest

from archives.failures import Against, Bursts, Pairing, Windows
from archives.sequential import BETS


def row(t: float, status: int = 200, node: str = "a", **facts: object) -> dict[str, object]:
    code = "ok" if status == 200 else "unavailable"
    return {"t": t, "status": status, "node": node, "code": code, "id": f"r{t}"} | facts


def test_a_burst_is_news_once_and_a_word_of_the_handler_is_always():
    bursts = Bursts()
    assert [bursts.is_news("a", row(t, 503)) for t in (1, 2, 5.9, 6, 10)] == [
        *(True, False, False, True, False)
    ]
    assert bursts.is_news("b", row(10, 503))
    assert bursts.is_news("a", row(10, 500, code="inference_failed"))


def test_windows_by_hand():
    windows = Windows(0.01)
    for t, status in ((0, 200), (1, 503), (2, 500), (4.9, 422), (5, 503), (9, 200)):
        windows.add(row(t, status))
        windows.add(row(t, 200, node="b"))
    # A whole one on each node: half of a's four attempts, none of b's; the last ones are open.
    assert (windows.test.n, windows.test.total) == (2, 0.5)


@pytest.mark.parametrize("size", [1, 20])
def test_false_alarms_of_windows_at_the_limit(size):
    alarms, runs, alpha, chance = 0, 200, 0.05, random.Random(size)
    for _ in range(runs):
        windows, alarm = Windows(0.05), False
        for number in range(200 * size):
            windows.add(row(5.0 * number / size, 503 if chance.random() < 0.05 else 200))
            alarm |= windows.test.log_evidence >= math.log(1 / alpha)
        alarms += alarm
    assert alarms / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_each_row_is_paired_once_with_the_latest_first_try():
    pairing = Pairing()
    assert pairing.take() is None
    pairing.add_new(row(1))
    pairing.add_new(row(2, 503, id="x"))
    pairing.add_new(row(3, id="x"))  # tried again
    assert pairing.take()["t"] == 2
    assert pairing.take() is None


def test_against_an_old_version_that_fails_too():
    against = Against()
    against.add_new(row(1, 503, id="a"))
    against.add_new(row(1, id="a"))  # tried again
    for t in (2, 3, 4):
        against.add_old(row(t))
    against.add_new(row(5, id="b"))
    # The failure was the new one's, with a chance of one in four.
    rates = np.geomspace(1.1, 1000, BETS) / 3
    expected = np.mean(rates / (1 + rates) / 0.25)
    assert against.test.n == 1
    assert against.test.log_evidence == pytest.approx(math.log(expected))
    assert not against.no_more  # the old one has never failed
    against.add_old(row(6, 500))
    against.add_new(row(7, id="c"))
    assert (against.test.n, against.old_fails) == (2, True)
    against.add_old(row(8))
    against.add_new(row(9, 503, id="d"))
    against.add_old(row(10, 503))
    against.add_new(row(11, id="e"))
    assert against.test.n == 2  # none failed, or all: that tells nothing


def test_failures_that_nobody_signs_are_one_against_the_old_version():
    against = Against(bursts=True)
    for number in range(4):
        against.add_new(row(number, 503, id=str(number), code="unavailable"))
        against.add_old(row(number + 0.5))
    against.add_new(row(9, id="x"))
    assert against.test.n == 1


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_versions_that_fail_alike_are_hardly_ever_told_apart(share: float):
    chance, alpha, runs, alarms = random.Random(3), 0.1, 200, 0
    for _ in range(runs):
        against, alarm = Against(), False
        for number in range(300):
            status = 503 if chance.random() < 0.2 else 200
            if chance.random() < share:
                against.add_new(row(number, status, id=str(number)))
            else:
                against.add_old(row(number, status))
            alarm |= against.test.log_evidence >= math.log(1 / alpha)
        alarms += alarm
    assert alarms / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
