"""Whether probabilities mean what they say: Brier, ECE, calibration line; and decision curves.

Metrics as in `binary`. Shapes in names: N rows, B sets of weights, M bins, T thresholds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from sonode.wilson import wilson
from train.statistics.binary import Bools, Floats, divide

BINS = 10  # equal width
_EPSILON = 1e-7  # probabilities are moved this far from 0 and 1 before their logit is taken


def brier(truth_N: Bools, p_N: Floats, weight_BN: Floats) -> Floats:
    """Mean squared difference of probability and outcome (Brier 1950)."""
    return divide(weight_BN @ (p_N - truth_N) ** 2, weight_BN.sum(axis=1))


def _bin(p_N: Floats) -> np.ndarray:
    """Bin of each probability: [0, 0.1), ..., [0.9, 1]."""
    return np.minimum((p_N * BINS).astype(np.int64), BINS - 1)


def ece(truth_N: Bools, p_N: Floats, weight_BN: Floats) -> Floats:
    """Expected calibration error over 10 bins of equal width (Guo et al. 2017, eq. 3).

    The mean over rows of |observed - predicted| of the row's bin; depends on the bins chosen. It
    is above 0 for probabilities that are right, too, the more the fewer the rows (simulated: .13
    for 60, .07 for 200, .04 for 600), and a draw with replacement adds as much again. So its
    interval is wide on purpose: from value - (the draws' upper bound - value), or 0 where that is
    less or the value is within what `ece_if_right` has, to the draws' upper bound. Simulated with
    100 and 300 rows, it held the truth in .95 and .97 of cohorts with right probabilities, and in
    .91 to .97 with wrong ones; the percentiles of the draws did in none, and in .49 to .94.
    """
    gap_NM = (p_N - truth_N)[:, None] * (_bin(p_N)[:, None] == np.arange(BINS))
    return divide(np.abs(weight_BN @ gap_NM).sum(axis=1), weight_BN.sum(axis=1))


def ece_if_right(
    p_N: Floats, patient_N: npt.ArrayLike, *, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Mean and 95th percentile of the ECE that these probabilities have where each is right.

    Labels are drawn from the probabilities, by one random number for each patient: a patient's
    images resemble each other, so that they say less than as many patients. An ECE below that
    percentile shows no error of calibration. None without draws or rows.
    """
    if not resamples or not len(p_N):
        return None
    patients_P, code_N = np.unique(np.asarray(patient_N, dtype=str), return_inverse=True)
    generator, one = np.random.default_rng(seed), np.ones((1, len(p_N)))
    drawn = [
        float(ece(generator.random(len(patients_P))[code_N] < p_N, p_N, one)[0])
        for _ in range(resamples)
    ]
    return float(np.mean(drawn)), float(np.quantile(drawn, 0.95))


def calibration_slope(truth_N: Bools, p_N: Floats, weight_BN: Floats) -> Floats:
    """Slope of the unpenalised logistic regression of truth on logit(p) (Cox 1958); ideal 1.

    Below 1 the probabilities are too extreme. Undefined with one class only, where the score
    separates the classes perfectly (the slope grows without bound), or all scores are equal.
    """
    return calibration_line(truth_N, p_N, weight_BN)[:, 1]


def calibration_intercept(truth_N: Bools, p_N: Floats, weight_BN: Floats) -> Floats:
    """Intercept of the same regression, read together with its slope; ideal 0."""
    return calibration_line(truth_N, p_N, weight_BN)[:, 0]


def calibration_in_the_large(truth_N: Bools, p_N: Floats, weight_BN: Floats) -> Floats:
    """Intercept with the slope held at 1 (Van Calster et al. 2019); ideal 0.

    Above 0 the probabilities are too low on the whole. Undefined with one class only.
    """
    fitted = (weight_BN @ truth_N > 0) & (weight_BN @ ~truth_N > 0)
    out_B = np.full(len(weight_BN), np.nan)
    ones_N1 = np.ones((len(p_N), 1))
    out_B[fitted] = _logistic(ones_N1, logit_of(p_N), truth_N, weight_BN[fitted])[:, 0]
    return out_B


def logit_of(p_N: Floats) -> Floats:
    """Log odds; of 0 and 1 those of 1e-7 and 1 - 1e-7."""
    found: Floats = logit(np.clip(p_N, _EPSILON, 1 - _EPSILON))
    return found


def calibration_line(truth_N: Bools, p_N: Floats, weight_BN: Floats) -> Floats:
    """Intercept and slope (B, 2); NaN where the regression has no finite solution."""
    x_N = logit_of(p_N)
    out_B2 = np.full((len(weight_BN), 2), np.nan)
    drawn_BN = weight_BN > 0
    # A finite solution needs the classes to overlap (Albert & Anderson 1984).
    low_1, high_1 = _range(x_N[truth_N], drawn_BN[:, truth_N])
    low_0, high_0 = _range(x_N[~truth_N], drawn_BN[:, ~truth_N])
    fitted_B = (high_0 > low_1) & (high_1 > low_0)
    if fitted_B.any():
        mean, spread = x_N.mean(), x_N.std()
        design_N2 = np.stack([np.ones_like(x_N), (x_N - mean) / spread], axis=1)
        zero_N = np.zeros_like(x_N)
        found_B2 = _logistic(design_N2, zero_N, truth_N, weight_BN[fitted_B])
        slope_B = found_B2[:, 1] / spread
        out_B2[fitted_B] = np.stack([found_B2[:, 0] - slope_B * mean, slope_B], axis=1)
    return out_B2


UPDATE_SD = 1.0
"""How far from 0 and 1 `updated_line` expects a new hospital's intercept and slope."""


def updated_line(truth_N: Bools, p_N: Floats, weight_BN: Floats) -> Floats:
    """Intercept and slope (B, 2) of the same regression with normal priors around 0 and 1.

    The most probable ones: ridge regression of the change from the development cohort's line, as
    Steyerberg et al. 2004 (doi 10.1002/sim.1844) shrink an update that is made on few patients.
    They exist where the scores separate the classes, too. After 50 simulated patients (intercepts
    from -1 to 1, slopes from .5 to 3) the ECE against the true probabilities was .046 on average;
    without priors .051, with the intercept alone .080, as it was .111. Tests that choose between
    these (Vergouwe et al. 2017, doi 10.1002/sim.7179) gave more than no priors: .060 for .054.
    """
    design_N2 = np.stack([np.ones_like(p_N), logit_of(p_N)], axis=1)
    change_B2 = _logistic(design_N2, logit_of(p_N), truth_N, weight_BN, UPDATE_SD**-2)
    found: Floats = change_B2 + np.array([0.0, 1.0])
    return found


def _range(x_N: Floats, drawn_BN: Bools) -> tuple[Floats, Floats]:
    """Lowest and highest drawn x of each set of weights; (inf, -inf) where none is drawn."""
    low = np.where(drawn_BN, x_N, np.inf).min(axis=1, initial=np.inf)
    return low, np.where(drawn_BN, x_N, -np.inf).max(axis=1, initial=-np.inf)


def _logistic(
    design_NP: Floats,
    offset_N: Floats,
    truth_N: Bools,
    weight_BN: Floats,
    precision: float = 0.0,
) -> Floats:
    """Coefficients (B, P) of B weighted logistic regressions by Newton's method.

    `precision`: of a normal prior around 0 of each coefficient, 1 / SD²; 0 for none.
    A step is halved until it lowers the loss, for full ones can go to and fro for ever where few
    rows overlap; NaN where 100 steps do not converge.
    """
    size = design_NP.shape[1]
    outer_NQ = (design_NP[:, :, None] * design_NP[:, None, :]).reshape(len(design_NP), -1)

    def loss(at_bP: Floats, weight_bN: Floats) -> Floats:
        z_bN = offset_N + at_bP @ design_NP.T
        found: Floats = (weight_bN * (np.logaddexp(0, z_bN) - truth_N * z_bN)).sum(axis=1)
        found += precision * (at_bP**2).sum(axis=1) / 2
        return found

    found_BP = np.zeros((len(weight_BN), size))
    loss_B = loss(found_BP, weight_BN)
    moving = np.arange(len(weight_BN))
    for _ in range(100):
        if not len(moving):
            return found_BP
        weight_bN = weight_BN[moving]
        p_bN = expit(offset_N + found_BP[moving] @ design_NP.T)
        gradient_bP = (weight_bN * (truth_N - p_bN)) @ design_NP - precision * found_BP[moving]
        hessian_bPP = ((weight_bN * p_bN * (1 - p_bN)) @ outer_NQ).reshape(-1, size, size)
        hessian_bPP += precision * np.eye(size)
        step_bP = np.linalg.solve(hessian_bPP, gradient_bP[:, :, None])[:, :, 0]
        longest_b = np.abs(step_bP).max(axis=1)
        # Far from the solution the loss is nearly flat, and a full step may leave the numbers.
        step_bP *= np.minimum(1, 2 / np.maximum(longest_b, 1))[:, None]
        tried_b = np.arange(len(moving))
        for _ in range(30):
            rows = moving[tried_b]
            at_bP = found_BP[rows] + step_bP[tried_b]
            tried_loss_b = loss(at_bP, weight_bN[tried_b])
            # Rounding: at the solution the loss goes neither up nor down.
            lower_b = tried_loss_b <= loss_B[rows] * (1 + 1e-12)
            found_BP[rows[lower_b]], loss_B[rows[lower_b]] = at_bP[lower_b], tried_loss_b[lower_b]
            tried_b = tried_b[~lower_b]
            if not len(tried_b):
                break
            step_bP[tried_b] /= 2
        moving = moving[longest_b > 1e-8]
    found_BP[moving] = np.nan
    return found_BP


def reliability_curve(truth_N: Bools, p_N: Floats) -> list[dict[str, float]]:
    """The non-empty ones of the 10 bins that `ece` uses, each with its share of positives.

    Keys: low, high, n, mean_probability, observed, and its Wilson interval, observed_low and
    observed_high.
    """
    bin_N, bins = _bin(p_N), []
    for index in np.unique(bin_N):
        inside_N = bin_N == index
        n, positive = int(inside_N.sum()), int(truth_N[inside_N].sum())
        low, high = wilson(positive, n) or (0.0, 1.0)
        bins.append(
            {
                "low": index / BINS,
                "high": (index + 1) / BINS,
                "n": n,
                "mean_probability": float(p_N[inside_N].mean()),
                "observed": positive / n,
                "observed_low": low,
                "observed_high": high,
            }
        )
    return bins


def net_benefit_at(truth_N: Bools, p_N: Floats, weight_BN: Floats, grid_G: Floats) -> Floats:
    """TP/n - FP/n * t/(1-t) (B, G) at each threshold t (Vickers & Elkin 2006).

    Positive is p > t, as for every threshold here; they write p >= t.
    """
    called_NG = p_N[:, None] > grid_G
    true_BG, false_BG = (weight_BN @ (called_NG & its[:, None]) for its in (truth_N, ~truth_N))
    # In percent and whole numbers, so that no benefit is exactly 0.
    percent_G = np.round(100 * grid_G, 9)
    gain_BG = (100 - percent_G) * true_BG - percent_G * false_BG
    return divide(gain_BG, weight_BN.sum(axis=1)[:, None] * (100 - percent_G))


def decision_curve(truth_N: Bools, p_N: Floats) -> dict[str, list[float]] | None:
    """Net benefit per row of `model` and `treat_all` at `threshold` 0.01 ... 0.99.

    Treating no one has 0 everywhere. None without rows.
    """
    if not len(truth_N):
        return None
    threshold_T, one = np.arange(1, 100) / 100, np.ones((1, len(truth_N)))
    model, treat_all = (
        net_benefit_at(truth_N, score_N, one, threshold_T)[0].tolist()
        for score_N in (p_N, np.ones_like(p_N))
    )
    return {"threshold": threshold_T.tolist(), "model": model, "treat_all": treat_all}
