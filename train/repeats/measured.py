"""Measures of a model that was trained several times: the mean over its repeats.

An interval draws whole patients and measures every repeat in each draw, so it says how the mean
would vary with the patients; the SD over the repeats says how a training varies with its seed.

Shapes in names: N rows of the test part, R repeats, B draws, G places of a grid.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from train.measures.binary_head import counted_on
from train.measures.measure import Json, Resampling, as_json, why_undefined
from train.measures.units import any_of, first_rows, score_of
from train.statistics import bands, binary
from train.statistics.binary import Bools, Floats, Metric, value
from train.statistics.bootstrap import bootstrap, bootstrap_difference
from train.statistics.interaction import holm

AT = 0.5  # the paper's threshold for both tasks
MEASURES: dict[str, Metric] = {
    "roc_auc": binary.roc_auc,
    "accuracy": partial(binary.accuracy, threshold=AT),
    "sensitivity": partial(binary.sensitivity, threshold=AT),
    "specificity": partial(binary.specificity, threshold=AT),
    "precision": partial(binary.precision, threshold=AT),
    "f1": partial(binary.f1, threshold=AT),
}
"""The paper's, which are per image."""
TITLES = {
    "roc_auc": "ROC AUC",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
}


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """The rows of the test part that a task is measured on, with their truth."""

    truth_N: Bools
    patient_N: npt.NDArray[np.object_]

    @property
    def patients(self) -> int:
        """How many patients they are of."""
        return len(set(self.patient_N.tolist()))


def in_units(
    on: TaskRows, score_NR: Floats, code_N: npt.NDArray[np.int64]
) -> tuple[TaskRows, Floats]:
    """One row a unit (`units.unit_codes`): positive if any row is; its score is their mean."""
    score_UR = np.stack([score_of(score_N, code_N, "mean") for score_N in score_NR.T], axis=1)
    patient_U = on.patient_N[first_rows(code_N)]
    return TaskRows(truth_N=any_of(on.truth_N, code_N), patient_N=patient_U), score_UR


def over_repeats(metric: Metric) -> Metric:
    """The mean of a metric over the columns of scores (N, R); NaN where one is undefined."""

    def mean(truth_N: Bools, score_NR: Floats, weight_BN: Floats) -> Floats:
        each = [metric(truth_N, score_N, weight_BN) for score_N in score_NR.T]
        return np.asarray(np.mean(each, axis=0), np.float64)

    return mean


def measured(on: TaskRows, score_NR: Floats, how: Resampling) -> dict[str, Json]:
    """Each measure's mean over the repeats with its interval by patient, and `sd` over repeats.

    As `train.measures.measure` has it; `sd` is None with one repeat, or where one is undefined.
    """
    means = {name: over_repeats(metric) for name, metric in MEASURES.items()}
    drawn = bootstrap(means, on.truth_N, score_NR, on.patient_N, **vars(how))
    called_N: Bools = np.all(score_NR > AT, axis=1)
    found = {}
    for name, metric in MEASURES.items():
        counted_N = counted_on(name, on.truth_N, called_N)
        of_whom = None if counted_N is None else on.patient_N[counted_N]
        each = [value(metric, on.truth_N, score_N) for score_N in score_NR.T]
        known = [it for it in each if it is not None]
        sd = statistics.stdev(known) if 1 < len(known) == len(each) else None
        found[name] = {
            **as_json(drawn[name], _reason(name, on.truth_N), of_whom),
            "sd": sd,
            "repeats": len(each),
        }
    return found


def differences(
    on: TaskRows, first_NR: Floats, second_NR: Floats, how: Resampling
) -> dict[str, Json]:
    """Each measure's mean over the repeats, first minus second, with interval and `p_value`.

    Both are measured on the same draws of patients.
    """
    pair = first_NR, second_NR
    called_N = ((first_NR > AT) != (second_NR > AT)).any(axis=1)
    apart = dict.fromkeys(MEASURES, called_N) | {
        "roc_auc": None,
        "sensitivity": called_N & on.truth_N,
        "specificity": called_N & ~on.truth_N,
    }
    return {
        name: as_json(
            bootstrap_difference(
                *(over_repeats(metric), on.truth_N, *pair, on.patient_N),
                **vars(how),
                apart_N=apart[name],
            ),
            _reason(name, on.truth_N),
        )
        for name, metric in MEASURES.items()
    }


def adjust(found: Sequence[Json]) -> None:
    """Write `p_holm`, adjusted for their number (Holm), into those that have a p-value."""
    known = [it for it in found if it.get("p_value") is not None]
    for it, adjusted in zip(known, holm([it["p_value"] for it in known]), strict=True):
        it["p_holm"] = adjusted


def roc_curve(on: TaskRows, score_NR: Floats, how: Resampling) -> Json | None:
    """Sensitivity at each share of false positives, mean over the repeats; None with one class.

    As a curve of `metrics.json`: rates and the band over draws of patients.
    """
    if why_undefined(on.truth_N):
        return None
    grid_G = bands.RATES_AT
    mean_curve = _curve_over_repeats(bands.sensitivity_at)
    (rate_G,) = mean_curve(on.truth_N, score_NR, np.ones((1, len(on.truth_N))), grid_G)
    drawn = bands.band(mean_curve, on.truth_N, score_NR, on.patient_N, grid_G, **vars(how))
    return {
        # From the corner: `sensitivity_at` 0 is the upper end of a curve that rises straight up.
        "false_positive_rate": [0.0, *grid_G.tolist()],
        "true_positive_rate": [0.0, *rate_G.tolist()],
        "band": None if drawn is None else asdict(drawn),
    }


def _curve_over_repeats(curve: bands.Curve) -> bands.Curve:
    def mean(truth_N: Bools, score_NR: Floats, weight_BN: Floats, grid_G: Floats) -> Floats:
        each = [curve(truth_N, score_N, weight_BN, grid_G) for score_N in score_NR.T]
        return np.asarray(np.mean(each, axis=0), np.float64)

    return mean


def _reason(name: str, truth_N: Bools) -> str:
    """Why a measure is undefined, should it be."""
    if not len(truth_N):
        return "no row of the test part has the label"
    if name in ("sensitivity", "specificity", "roc_auc"):
        return why_undefined(truth_N) or "undefined"
    return "nothing is called positive in one of the repeats"
