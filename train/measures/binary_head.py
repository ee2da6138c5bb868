"""The measures of a binary head on one set of rows: areas, operating points, curves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_curve, roc_curve

from sonode.wilson import wilson
from train.measures.calibration import measure_calibration
from train.measures.measure import (
    CURVE_DIGITS,
    Json,
    Resampling,
    as_json,
    band_of,
    why_undefined,
)
from train.statistics import bands, binary
from train.statistics.binary import Bools, Floats, Metric
from train.statistics.bootstrap import bootstrap
from train.statistics.delong import delong

_RATES: dict[str, Any] = {
    "accuracy": binary.accuracy,
    "sensitivity": binary.sensitivity,
    "specificity": binary.specificity,
    "precision": binary.precision,
    "npv": binary.npv,
    "f1": binary.f1,
    "lr_positive": binary.lr_positive,
    "lr_negative": binary.lr_negative,
}
_AREAS: dict[str, Metric] = {
    "roc_auc": binary.roc_auc,
    "pr_auc": binary.average_precision,
}
_REASONS = {
    "sensitivity": "no positive label",
    "specificity": "no negative label",
    "precision": "nothing is called positive",
    "npv": "nothing is called negative",
    "f1": "nothing is positive or called positive",
    "lr_positive": "no negative is called positive: it has no bound",
    "lr_negative": "every negative is called positive: it has no bound",
}


def measure_binary(
    truth_N: Bools,
    p_N: Floats,
    judged: tuple[Floats | None, str],
    patient_N: npt.NDArray[Any],
    points: Mapping[str, float],
    how: Resampling,
) -> Json:
    """Counts, measures, operating points and curves of a binary head.

    `judged`: the probability (N,) whose calibration these rows can judge, and what it is in words;
    None, and why there is none.
    """
    metrics = dict(_AREAS)
    for point, threshold in points.items():
        for name, metric in _RATES.items():
            metrics[f"{point}/{name}"] = partial(metric, threshold=threshold)
    found = bootstrap(metrics, truth_N, p_N, patient_N, **vars(how))
    classes = why_undefined(truth_N)
    empty = None if len(truth_N) else classes

    def rate(point: str, name: str) -> Json:
        reason = (classes if name.startswith("lr") else empty) or _REASONS.get(name, "undefined")
        counted_N = counted_on(name, truth_N, p_N > points[point])
        patients = None if counted_N is None else patient_N[counted_N]
        return as_json(found[f"{point}/{name}"], reason, patients)

    return {
        "rows": len(truth_N),
        "patients": len(set(patient_N.tolist())),
        "positive": int(truth_N.sum()),
        "negative": int((~truth_N).sum()),
        **{name: as_json(found[name], classes or "undefined") for name in _AREAS},
        **measure_calibration(truth_N, judged, patient_N, how),
        "delong": _delong(truth_N, p_N),
        "operating_points": {
            point: {
                "threshold": threshold,
                **binary.confusion(truth_N, p_N, threshold),
                **{name: rate(point, name) for name in _RATES},
                "wilson": _wilson(truth_N, p_N, threshold),
            }
            for point, threshold in points.items()
        },
        "curves": None if classes else _curves(truth_N, p_N, patient_N, how),
    }


def counted_on(name: str, truth_N: Bools, called_N: Bools) -> Bools | None:
    """The rows (N,) that a proportion is counted on; None where `name` is none (F1, the AUC)."""
    rows = binary.PROPORTIONS.get(name)
    return None if rows is None else rows(truth_N, called_N)


def measure_subgroup(
    truth_N: Bools, p_N: Floats, patient_N: npt.NDArray[Any], threshold: float, how: Resampling
) -> Json:
    """The few measures that a subgroup is large enough for."""
    metrics: dict[str, Metric] = {
        "roc_auc": binary.roc_auc,
        "sensitivity": partial(binary.sensitivity, threshold=threshold),
        "specificity": partial(binary.specificity, threshold=threshold),
    }
    found = bootstrap(metrics, truth_N, p_N, patient_N, **vars(how))
    classes, called_N = why_undefined(truth_N), p_N > threshold
    return {
        "rows": len(truth_N),
        "patients": len(set(patient_N.tolist())),
        "positive": int(truth_N.sum()),
        "threshold": threshold,
        **{
            name: as_json(
                interval,
                _REASONS.get(name) or classes or "undefined",
                None if (rows := counted_on(name, truth_N, called_N)) is None else patient_N[rows],
            )
            for name, interval in found.items()
        },
    }


def _delong(truth_N: Bools, p_N: Floats) -> Json:
    found = delong(truth_N, p_N)
    if found is None:
        reason = why_undefined(truth_N) or "fewer than two rows of a class"
        return {"se": None, "low": None, "high": None, "reason": reason}
    interval = {"se": found.se, "low": found.low, "high": found.high}
    if found.low is not None:
        return interval
    why = "the AUC is 0 or 1" if found.auc in (0, 1) else "its standard error is 0"
    return {**interval, "reason": why}


def _wilson(truth_N: Bools, p_N: Floats, threshold: float) -> dict[str, list[float] | None]:
    """Score intervals of the proportions, rows as independent; F1 and LRs are none."""
    called_N = p_N > threshold
    found: dict[str, list[float] | None] = {}
    for name, rows in binary.PROPORTIONS.items():
        right_n = (called_N == truth_N)[rows(truth_N, called_N)]
        interval = wilson(int(right_n.sum()), len(right_n))
        found[name] = list(interval) if interval else None
    return found


def _curves(truth_N: Bools, p_N: Floats, patient_N: npt.NDArray[Any], how: Resampling) -> Json:
    """Points of the ROC and PR curves, without those that lie on a line, and their bands."""
    false_positive, true_positive, _ = roc_curve(truth_N, p_N)
    precision, recall, _ = precision_recall_curve(truth_N, p_N, drop_intermediate=True)
    # Where nothing is recalled precision has no meaning: the curve starts level with its first.
    gained = recall[::-1] > 0
    recall, precision = recall[::-1][gained], precision[::-1][gained]
    recall, precision = np.append(0, recall), np.append(precision[0], precision)

    def points(values: Floats) -> list[float]:
        return [round(float(one), CURVE_DIGITS) for one in values]

    return {
        "roc": {
            "false_positive_rate": points(false_positive),
            "true_positive_rate": points(true_positive),
            "band": band_of(bands.sensitivity_at, truth_N, p_N, patient_N, bands.RATES_AT, how),
        },
        "pr": {
            "recall": points(recall),
            "precision": points(precision),
            "band": band_of(bands.precision_at, truth_N, p_N, patient_N, bands.RATES_AT, how),
        },
    }
