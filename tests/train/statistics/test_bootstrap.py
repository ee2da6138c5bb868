import math

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm

from train.statistics import reliability
from train.statistics.binary import roc_auc, share
from train.statistics.bootstrap import (
    bootstrap,
    bootstrap_difference,
    bootstrap_unpaired,
    weights,
)
from train.statistics.delong import delong_p

NONE = np.empty(0)


def clustered(
    generator: np.random.Generator, patients: int, images: int, gap: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half the patients positive; 90 % of a score's variance is the patient's."""
    patient = np.repeat(np.arange(patients), images)
    truth = patient % 2 == 0
    own = math.sqrt(0.9) * generator.standard_normal(patients)[patient]
    return (
        truth,
        gap * truth + own + math.sqrt(0.1) * generator.standard_normal(len(patient)),
        patient,
    )


def test_a_patient_is_drawn_whole_and_as_many_are_drawn_as_there_are() -> None:
    patient = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = np.concatenate(list(weights(patient, 50, 0)))
    assert drawn.shape == (50, 6)
    assert (drawn[:, 0] == drawn[:, 2]).all() and (drawn[:, 0] == drawn[:, 5]).all()
    assert (drawn[:, 1] == drawn[:, 4]).all()
    assert (drawn[:, [0, 1, 3]].sum(axis=1) == 3).all()
    # Multinomial: the variance of a count is n * 1/n * (1 - 1/n) = 2/3.
    many = np.concatenate(list(weights(patient, 20_000, 1)))
    assert many[:, 0].var() == pytest.approx(2 / 3, abs=0.02)


def test_the_seed_decides() -> None:
    truth, score, patient = clustered(np.random.default_rng(0), 40, 2, 1.0)
    runs = [
        bootstrap({"auc": roc_auc}, truth, score, patient, resamples=200, seed=seed)["auc"]
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_one_row_a_patient_is_scipys_percentile_bootstrap() -> None:
    event = np.random.default_rng(0).random(200) < 0.3
    ours = bootstrap({"share": share}, event, NONE, np.arange(200), resamples=5000)["share"]
    scipys = scipy_bootstrap(
        (event.astype(float),), np.mean, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    # A 2.5 % quantile of 5000 draws of a share with SD .032 has a standard error of about .0012.
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=0.006)


def test_coverage_by_simulation() -> None:
    """True AUC by the binormal formula Phi(gap / sqrt 2); the row bootstrap is the control.

    200 cohorts: a coverage of .95 has a standard error of .015, and percentile intervals of 80
    patients run about .01 short; .90 is over two standard errors below. Drawing rows as if each
    were a patient ignores that eight images of one patient are nearly one image.
    """
    generator, gap = np.random.default_rng(3), 1.0
    true_auc = (1 + math.erf(gap / 2)) / 2
    covered = {"patients": 0, "rows": 0}
    for cohort in range(200):
        truth, score, patient = clustered(generator, 80, 8, gap)
        for unit, cluster in (("patients", patient), ("rows", np.arange(len(patient)))):
            found = bootstrap({"auc": roc_auc}, truth, score, cluster, resamples=300, seed=cohort)
            covered[unit] += found["auc"].low < true_auc < found["auc"].high
    assert 0.90 <= covered["patients"] / 200 <= 0.99
    assert covered["rows"] / 200 < 0.70


def test_draws_without_one_class_are_counted_and_left_out() -> None:
    truth = np.array([True] * 4 + [False] * 30)
    score = np.random.default_rng(0).random(34)
    found = bootstrap({"auc": roc_auc}, truth, score, np.arange(34), resamples=4000)["auc"]
    # No positive: (30/34)^34 = 1.4 %.
    assert found.undefined / found.resamples == pytest.approx((30 / 34) ** 34, abs=0.006)
    assert found.low is not None and found.high is not None
    assert found.low < found.value < found.high


def test_where_too_many_draws_are_undefined_there_is_no_interval() -> None:
    truth = np.array([True, False, False, False])
    found = bootstrap({"auc": roc_auc}, truth, np.arange(4.0), np.arange(4), resamples=4000)["auc"]
    # No positive: (3/4)^4; four times the positive: (1/4)^4.
    assert found.undefined / found.resamples == pytest.approx(0.75**4 + 0.25**4, abs=0.03)
    assert (found.value, found.low, found.high) == (0.0, None, None)
    difference = bootstrap_difference(
        *(roc_auc, truth, np.arange(4.0), -np.arange(4.0), np.arange(4)), resamples=400
    )
    assert (difference.value, difference.low, difference.p_value) == (-1.0, None, None)
    # Of two positive among 30, (28/30)^30 = 13 % of the draws have none: more than 5 %.
    truth = np.arange(30) < 2
    score = np.random.default_rng(0).random(30)
    found = bootstrap({"auc": roc_auc}, truth, score, np.arange(30), resamples=1000)["auc"]
    assert 0.05 < found.undefined / found.resamples < 0.5
    assert (found.low, found.high) == (None, None)


def test_an_undefined_measure_and_a_single_patient_have_no_interval() -> None:
    both = np.array([True, True]), np.array([0.1, 0.2])
    one_class = bootstrap({"auc": roc_auc}, *both, np.arange(2), resamples=9)["auc"]
    assert (one_class.value, one_class.low, one_class.resamples) == (None, None, 0)
    single = bootstrap({"share": share}, np.array([True, False]), NONE, ["p", "p"], resamples=9)[
        "share"
    ]
    assert (single.value, single.low, single.resamples) == (0.5, None, 0)
    empty = bootstrap({"auc": roc_auc}, np.empty(0, bool), NONE, [], resamples=9)["auc"]
    assert (empty.value, empty.low, empty.resamples) == (None, None, 0)


def test_draws_that_are_all_alike_are_no_interval() -> None:
    truth = np.arange(24) < 9
    metrics = {"auc": roc_auc, "brier": reliability.brier}
    found = bootstrap(metrics, truth, np.where(truth, 0.9, 0.1), np.arange(24), resamples=200)
    assert found["auc"].value == 1
    assert found["brier"].value == pytest.approx(0.01)  # and its draws differ by rounding alone
    for measure in found.values():
        assert measure.alike
        assert (measure.low, measure.high, measure.undefined) == (None, None, 0)


def test_a_paired_difference_agrees_with_delongs_test() -> None:
    generator = np.random.default_rng(5)
    truth, first, patient = clustered(generator, 300, 1, 1.2)
    second = first - 0.1 * truth + 0.4 * generator.standard_normal(300)
    ours = bootstrap_difference(roc_auc, truth, first, second, patient, resamples=4000)
    delongs = delong_p(truth, first, second)
    assert delongs is not None and ours.value is not None
    half = abs(ours.value) * norm.ppf(0.975) / norm.isf(delongs / 2)
    # Both are large-sample: bounds within a tenth of the interval's width of each other.
    bounds = ours.value - half, ours.value + half
    assert (ours.low, ours.high) == pytest.approx(bounds, abs=0.2 * half)
    assert 0.001 < delongs < 0.1
    assert 0.5 < ours.p_value / delongs < 2


def test_no_difference_has_a_p_value_of_one_and_the_smallest_is_limited_by_the_draws() -> None:
    truth, score, patient = clustered(np.random.default_rng(0), 60, 2, 3.0)
    same = bootstrap_difference(roc_auc, truth, score, score, patient, resamples=99)
    assert (same.value, same.low, same.high, same.p_value) == (0.0, None, None, 1.0)
    opposite = bootstrap_difference(roc_auc, truth, score, -score, patient, resamples=99)
    assert opposite.p_value == 2 / 100


def test_a_p_value_is_not_below_what_so_few_patients_can_show() -> None:
    def lost(of: int, patients: int, rows_each: int = 1) -> float | None:
        first = np.ones(patients * rows_each)
        second = np.where(np.arange(patients * rows_each) < of * rows_each, 0.0, 1.0)
        ids = np.repeat(np.arange(patients), rows_each)
        share_of = bootstrap_difference(
            lambda _, it, weight: share(it, it, weight), first, first, second, ids, resamples=400
        )
        return share_of.p_value

    # The sign test: of k patients in whom they differ all k favour one, 2 / 2^k.
    assert lost(2, 2) == 2 / 2**2  # every draw is 1
    assert lost(2, 2, rows_each=9) == 2 / 2**2
    assert lost(4, 5) == 2 / 2**4  # (1/5)^5 of the draws are 0
    assert lost(4, 400) == 2 / 2**4
    assert lost(20, 40) == 2 / 401  # there the draws are the limit
    event, none = np.ones(3), np.zeros(3)
    found = bootstrap_unpaired(
        share, (event, event, [1, 2, 3]), (none, none, [4, 5, 6]), resamples=2000
    )
    assert found.p_value == 2 / 20  # 20 ways to choose three of six


def test_an_unpaired_difference_by_hand() -> None:
    event, none = np.array([1.0, 0.0]), np.array([0.0, 0.0])
    first = event, event, ["a", "b"]
    # Drawn apart: of the same rows the difference has twice the variance, and is not 0.
    same = bootstrap_unpaired(share, first, (event, event, ["c", "d"]), resamples=2000)
    assert (same.value, same.low, same.high) == (0, -1, 1)
    # Draws of one are 1/2, 3/4, 1, of the other 0, 1/2, 1, with shares 1/4, 1/2, 1/4: a difference
    # of 0 or less where the other is 1, or both are 1/2.
    most = np.array([1.0, 0.5])
    found = bootstrap_unpaired(share, (most, most, ["a", "b"]), first, resamples=2000)
    assert (found.value, found.low, found.high) == (0.25, -0.5, 1)
    assert found.p_value == pytest.approx(2 * (1 / 4 + 1 / 8), abs=0.05)
    # All of 5 are found, and 85 of 100: the first is 1 in every draw, yet may be as low.
    all_5, most_100 = np.ones(5), (np.arange(100) < 85).astype(float)
    bound = (all_5, all_5, range(5)), (most_100, most_100, range(5, 105))
    for pair in (bound, bound[::-1]):
        one_side = bootstrap_unpaired(share, *pair, resamples=2000)
        assert abs(one_side.value or 0) == pytest.approx(0.15)
        assert (one_side.low, one_side.high, one_side.p_value) == (None, None, None)
    alone = bootstrap_unpaired(share, first, (none, none, ["c", "c"]), resamples=100)
    assert (alone.value, alone.low, alone.p_value) == (0.5, None, None)
    truth, score = np.array([True, True]), np.array([0.2, 0.4])
    one_class = bootstrap_unpaired(
        roc_auc, (truth, score, ["a", "b"]), (truth, score, ["c", "d"]), resamples=9
    )
    assert (one_class.value, one_class.p_value) == (None, None)
