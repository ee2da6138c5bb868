"""archives/failures.py: how failures are counted, by hand and simulated."""

import math
import random

import pytest

from archives.failures import Against, Bursts, Pairing, Windows


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
    against.add(True, False)
    assert not against.no_more  # the old one has never failed
    against.add(True, True)
    assert not against.no_more
    against.add(False, True)
    assert against.no_more
    assert against.test.n == 2
    alike = Against()
    alike.add(True, True)
    alike.add(True, False, is_news=False)
    assert (alike.no_more, alike.test.n) == (True, 0)
