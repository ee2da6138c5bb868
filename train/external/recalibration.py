"""Calibration before and after recalibration on a few patients of an external cohort.

The figures of one choice of 50 patients say more about the choice than about the network, so many
choices are made. Shapes in names: N rows, D choices of patients, G places of a grid.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from model_def.heads import HeadSpec
from sonode.console import counted
from train.fitting.predictions import Predictions
from train.measures.measure import CURVE_DIGITS, Json
from train.measures.sets import judged_on, sets_of, truth_of_rows
from train.statistics import bands, reliability
from train.statistics.binary import Bools, Floats, Metric, value
from train.statistics.bootstrap import CONFIDENCE

CHOICES = 200
FEWEST_OF_A_LABEL = 5
"""Patients of each label that a recalibration needs, as the temperature of a training does."""
MEASURES: dict[str, Metric] = {
    "brier": reliability.brier,
    "ece": reliability.ece,
    "calibration_slope": reliability.calibration_slope,
    "calibration_intercept": reliability.calibration_intercept,
    "calibration_in_the_large": reliability.calibration_in_the_large,
}
_TAIL = (1 - CONFIDENCE) / 2


def recalibrated(head: HeadSpec, of: Predictions, take: int, seed: int) -> Json:
    """Before and after, on the patients that a recalibration did not take: over many choices.

    The intercept alone (calibration in the large set to 0), or intercept and slope held near 0 and
    1 (`reliability.updated_line`), of the probability that a set can judge (the primary one before
    others), per image. Each measure is {value, low, high}: the mean over the choices and their 2.5
    and 97.5 %. Choices with too few patients of a label are left out and counted in `too_few`.
    """
    frame = of.frame.reset_index(drop=True)
    judged = {
        name: (on, *judged_on(head, of.hierarchy, on, frame))
        for name, on in sets_of(head, of.heads, frame).items()
    }
    name = next((name for name, its in judged.items() if its[1] is not None), next(iter(judged)))
    on, judged_N, words = judged[name]
    if judged_N is None:
        return {"reason": words}
    rows = frame[on.rows]
    truth_N = truth_of_rows(rows, head)
    patients_P, code_N = np.unique(rows["patient_id"].to_numpy(dtype=str), return_inverse=True)
    facts: Json = {"on": name, "judged": words, "patients": take, "choices": CHOICES}
    if len(patients_P) <= take:
        return {
            **facts,
            "reason": f"{counted(len(patients_P), 'labelled patient')}: none is left to measure",
        }
    facts["rest_patients"] = len(patients_P) - take
    generator = np.random.default_rng(seed)
    taken_DN = np.array(
        [np.isin(code_N, generator.permutation(len(patients_P))[:take]) for _ in range(CHOICES)]
    )
    enough_D = [
        min(len(set(code_N[taken_N & (truth_N == label)].tolist())) for label in (True, False))
        >= FEWEST_OF_A_LABEL
        for taken_N in taken_DN
    ]
    facts["too_few"] = CHOICES - sum(enough_D)
    if not any(enough_D):
        return {
            **facts,
            "reason": f"a recalibration needs {FEWEST_OF_A_LABEL} patients of each label, and in "
            f"none of {CHOICES} choices {take} patients have them",
        }
    taken_DN = taken_DN[enough_D]
    weight_DN = taken_DN.astype(np.float64)
    large_D = reliability.calibration_in_the_large(truth_N, judged_N, weight_DN)
    as_it_is = np.tile([0.0, 1.0], (len(taken_DN), 1))
    lines = {
        "none": as_it_is,
        "intercept": np.stack([large_D, as_it_is[:, 1]], axis=1),
        "intercept and slope": reliability.updated_line(truth_N, judged_N, weight_DN),
    }
    after = {
        way: _over_choices(truth_N, judged_N, code_N, taken_DN, line_D2)
        for way, line_D2 in lines.items()
    }
    return {**facts, "reason": None, "after": after}


def _over_choices(
    truth_N: Bools, p_N: Floats, code_N: np.ndarray, taken_DN: Bools, line_D2: Floats
) -> Json:
    """Each measure over the choices, with the logistic calibration curve and its band."""
    logit_N = reliability.logit_of(p_N)
    found: dict[str, list[float | None]] = {name: [] for name in MEASURES}
    right = []
    for number, (taken_N, line_2) in enumerate(zip(taken_DN, line_D2, strict=True)):
        rest = ~taken_N
        now_N = expit(line_2[0] + line_2[1] * logit_N[rest])
        for name, metric in MEASURES.items():
            found[name].append(value(metric, truth_N[rest], now_N))
        if one := reliability.ece_if_right(now_N, code_N[rest], resamples=5, seed=number):
            right.append(one[0])
    spread = {name: _spread(its) for name, its in found.items()}
    spread["ece"]["if_right"] = {"mean": float(np.mean(right))}
    return {
        "intercept_added": _spread(line_D2[:, 0].tolist()),
        "slope_times": _spread(line_D2[:, 1].tolist()),
        **spread,
        "calibration_curve": _curve(
            *(np.array(found[f"calibration_{it}"], float) for it in ("intercept", "slope"))
        ),
    }


def _spread(found: list[float | None]) -> Json:
    """Mean over the choices, and 2.5 and 97.5 % of them; those without a value are counted."""
    known = [it for it in found if it is not None]
    undefined = len(found) - len(known)
    if not known:
        why = "the rest has one label alone, or its scores separate the labels or are all equal"
        return {"value": None, "low": None, "high": None, "reason": why}
    low, high = np.quantile(known, [_TAIL, 1 - _TAIL]).tolist()
    mean = float(np.mean(known))
    return {"value": mean, "low": low, "high": high, "undefined_resamples": undefined}


def _curve(intercept_D: Floats, slope_D: Floats) -> Json | None:
    """The share to expect at each probability: median of the choices, 2.5 and 97.5 % of them."""
    grid_G = bands.PROBABILITIES_AT
    known_D = np.isfinite(intercept_D) & np.isfinite(slope_D)
    if not known_D.any():
        return None
    z_DG = intercept_D[known_D, None] + slope_D[known_D, None] * reliability.logit_of(grid_G)
    low, middle, high = (
        np.quantile(expit(z_DG), at, axis=0).round(CURVE_DIGITS).tolist()
        for at in (_TAIL, 0.5, 1 - _TAIL)
    )
    at = grid_G.tolist()
    return {"probability": at, "observed": middle, "band": {"at": at, "low": low, "high": high}}
