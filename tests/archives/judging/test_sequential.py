"""sequential.py: false alarms under the null with a look after every value, and power."""

import math

import numpy as np
import pytest

from archives.judging import sequential
from archives.judging.sequential import MeanTest, band, ks, ks_by_chance, least_distance, looks

ALPHA = 0.05
RUNS = 200
ALLOWED = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)  # 3 standard errors of the simulation


def first_alarm(test: MeanTest, values: np.ndarray, alpha: float = ALPHA) -> int | None:
    """How many values were seen at the alarm; a look after each."""
    for number, value in enumerate(values, 1):
        test.add(value)
        if test.log_evidence >= math.log(1 / alpha):
            return number
    return None


def test_a_likelihood_ratio_by_hand():
    test = MeanTest(0.5)
    assert test.log_evidence == pytest.approx(0)
    assert test.mean is None
    odds = np.geomspace(1.1, 1000, sequential.BETS)  # limit 0.5: odds 1
    rates = odds / (1 + odds)
    for value in (1, 1, 0):
        test.add(value)
    by_hand = np.mean((rates / 0.5) ** 2 * (1 - rates) / 0.5)
    assert test.log_evidence == pytest.approx(math.log(by_hand))
    assert (test.n, test.mean) == (3, pytest.approx(2 / 3))


@pytest.mark.parametrize("limit", [0.01, 0.1, 2 / 3])
@pytest.mark.parametrize("most", [math.inf, 1.5])
def test_false_alarms_of_rates(limit, most):
    random = np.random.default_rng(0)
    alarms = sum(
        first_alarm(MeanTest(limit, most), random.random(400) < limit) is not None
        for _ in range(RUNS)
    )
    assert alarms / RUNS <= ALLOWED


def test_false_alarms_of_bounded_values_whose_mean_depends_on_the_past():
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(RUNS):
        values, last = [], 0.0
        for _ in range(300):
            mean = 0.05 if last > 0.05 else 0.02  # never above the limit, never independent
            last = random.beta(mean * 8, (1 - mean) * 8)
            values.append(last)
        alarms += first_alarm(MeanTest(0.05), np.array(values)) is not None
    assert alarms / RUNS <= ALLOWED


@pytest.mark.parametrize(
    ("limit", "true", "within"), [(0.01, 0.05, 400), (0.02, 0.5, 12), (2 / 3, 1.0, 25)]
)
def test_power_of_rates(limit, true, within):
    random = np.random.default_rng(2)
    found = [
        first_alarm(MeanTest(limit), random.random(2000) < true, alpha=0.001) or 2000
        for _ in range(100)
    ]
    assert np.median(found) < within


def test_a_short_disturbance_is_not_enough_where_a_value_is_bounded():
    bad = np.ones(50)
    assert first_alarm(MeanTest(0.1), bad, alpha=0.001) == 4
    assert first_alarm(MeanTest(0.1, most=1.5), bad, alpha=0.001) >= math.log(1000) / math.log(1.5)


def test_bands_by_hand():
    assert band(19, 0.05) == (0, 1.0)
    assert band(20, 0.05) == (20, pytest.approx(math.sqrt(math.log(2 * 2 / 0.05) / 40)))
    assert band(23, 0.05)[0] == 20  # the next look is at 24
    assert band(24, 0.05) == (24, pytest.approx(math.sqrt(math.log(2 * 6 / 0.05) / 48)))
    assert (looks(19), looks(20), looks(24)) == (0, 1, 2)
    assert sum(1 / (k * (k + 1)) for k in range(1, 10_000)) < 1


def test_ks_by_hand():
    assert ks([1, 2, 3, 4], [1, 2, 3, 4]) == 0
    assert ks([0.1, 0.2], [0.3, 0.4]) == 1
    assert ks([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5
    assert ks_by_chance(100, 100) == pytest.approx(0.192, abs=0.001)


def test_false_alarms_and_power_of_distances():
    random = np.random.default_rng(3)

    def alarms(shift: float, limit: float) -> list[bool]:
        found = []
        for _ in range(100):
            a, b = random.random(600), random.random(600) * (1 - shift)
            bounds = [least_distance(a[:n], b[:n], ALPHA) for n in range(10, 601, 5)]
            found.append(any(bound is not None and bound > limit for bound in bounds))
        return found

    assert np.mean(alarms(0.0, 0.0)) <= ALPHA
    assert np.mean(alarms(0.2, 0.2)) <= ALPHA  # the true distance is the limit: 0.2
    assert np.mean(alarms(0.5, 0.1)) > 0.99
    assert least_distance([0.5] * 19, [0.5] * 100, ALPHA) is None
