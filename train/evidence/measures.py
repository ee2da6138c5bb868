"""All measures of one head on one set of rows, as JSON: every one with what it was counted on.

A measure is {value, low, high, resamples, undefined_resamples}; where it is undefined, value, low
and high are null and `reason` says why; where it has a value and no interval, `no_interval` does.
A proportion of none or of all has a Wilson interval in place of draws that are all alike, and says
so in `interval`. Nothing here is ever NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from train.statistics import bands, binary, reliability
from train.statistics.binary import Bools, Floats, Metric
from train.statistics.bootstrap import Interval, bootstrap
from train.statistics.delong import delong

Json = dict[str, Any]

_CURVE_DIGITS = 6
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
_CALIBRATION: dict[str, Metric] = {
    "brier": reliability.brier,
    "calibration_slope": reliability.calibration_slope,
    "calibration_intercept": reliability.calibration_intercept,
    "calibration_in_the_large": reliability.calibration_in_the_large,
}
_ECE_INTERVAL = "draws overstate it"
_NO_LINE = "the scores separate the classes, or are all equal: no finite regression line"
_REASONS = {
    "sensitivity": "no positive label",
    "specificity": "no negative label",
    "precision": "nothing is called positive",
    "npv": "nothing is called negative",
    "f1": "nothing is positive or called positive",
    "lr_positive": "no negative is called positive: it has no bound",
    "lr_negative": "every negative is called positive: it has no bound",
    "calibration_slope": _NO_LINE,
    "calibration_intercept": _NO_LINE,
}


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are drawn."""

    resamples: int
    seed: int


def as_json(
    interval: Interval, reason: str, counted_N: npt.NDArray[Any] | Sequence[Any] | None = None
) -> Json:
    """The measure as JSON; `reason` is kept only where it is undefined.

    `counted_N`: of a proportion, the patient of each row that it is counted on. Where the event is
    in no row or in all, every draw is alike and says nothing of how rare it may be: the interval is
    Wilson's then, of patients, since a patient's images resemble each other.
    """
    found = asdict(interval)
    found["undefined_resamples"] = undefined = found.pop("undefined")
    alike = found.pop("alike")
    if interval.value is None:
        return {**found, "reason": reason}
    if counted_N is not None and interval.value in (0, 1):
        patients = len(set(counted_N))
        low, high = binary.wilson(int(interval.value) * patients, patients) or (None, None)
        return {**found, "low": low, "high": high, "interval": f"Wilson, {patients} patients"}
    if interval.low is None:
        few = f"{undefined} of {interval.resamples} draws are undefined"
        found["no_interval"] = (
            ("all draws are equal" if alike else few)
            if interval.resamples
            else "no draws, or one patient only"
        )
    return found


def why_undefined(truth_N: Bools) -> str | None:
    """Why a measure that needs both classes is undefined here; None where both are there."""
    positive, negative = int(truth_N.sum()), int((~truth_N).sum())
    if not positive and not negative:
        return "no row has a label"
    if not positive or not negative:
        return f"one class only: {positive} positive, {negative} negative"
    return None


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
        counted_N = _counted_on(name, truth_N, p_N > points[point])
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
                **asdict(binary.confusion(truth_N, p_N, threshold)),
                **{name: rate(point, name) for name in _RATES},
                "wilson": _wilson(truth_N, p_N, threshold),
            }
            for point, threshold in points.items()
        },
        "curves": None if classes else _curves(truth_N, p_N, patient_N, how),
    }


def measure_calibration(
    truth_N: Bools,
    judged: tuple[Floats | None, str],
    patient_N: npt.NDArray[Any],
    how: Resampling,
) -> Json:
    """Measures on the rows that a probability applies to; `judged` names these."""
    judged_N, words = judged
    if judged_N is None:
        nothing = Interval(value=None, low=None, high=None, resamples=0, undefined=0)
        none = {name: as_json(nothing, words) for name in (*_CALIBRATION, "ece")}
        lines = {"calibration_curve": None, "decision_curve": None}
        return {"judged": None, **none, "reliability": [], **lines}
    found = bootstrap(_CALIBRATION, truth_N, judged_N, patient_N, **vars(how))
    found |= bootstrap({"ece": reliability.ece}, truth_N, judged_N, patient_N, resamples=0)
    classes = why_undefined(truth_N)
    curve = reliability.decision_curve(truth_N, judged_N)
    drawn = (truth_N, judged_N, patient_N)
    measures = {
        name: as_json(interval, classes or _REASONS.get(name, "undefined"))
        for name, interval in found.items()
    }
    if "no_interval" in measures["ece"]:
        measures["ece"]["no_interval"] = _ECE_INTERVAL
    return {
        "judged": words,
        **measures,
        "reliability": [asdict(it) for it in reliability.reliability_curve(truth_N, judged_N)],
        "calibration_curve": None if classes else _calibration_curve(*drawn, how),
        "decision_curve": curve
        and {
            **asdict(curve),
            "band": _band(bands.net_benefit_at, *drawn, np.array(curve.threshold), how),
        },
    }


def _calibration_curve(
    truth_N: Bools, p_N: Floats, patient_N: npt.NDArray[Any], how: Resampling
) -> Json | None:
    """The logistic calibration curve; None where there is no finite one."""
    grid_G = bands.PROBABILITIES_AT
    (value_G,) = bands.observed_at(truth_N, p_N, np.ones((1, len(p_N))), grid_G)
    if np.isnan(value_G).any():
        return None
    band = _band(bands.observed_at, truth_N, p_N, patient_N, grid_G, how)
    return {
        "probability": grid_G.tolist(),
        "observed": [round(float(it), _CURVE_DIGITS) for it in value_G],
        "band": band,
    }


def _band(
    curve: bands.Curve,
    truth_N: Bools,
    p_N: Floats,
    patient_N: npt.NDArray[Any],
    grid_G: Floats,
    how: Resampling,
) -> Json | None:
    found = bands.band(curve, truth_N, p_N, patient_N, grid_G, **vars(how))
    return None if found is None else asdict(found)


def _counted_on(name: str, truth_N: Bools, called_N: Bools) -> Bools | None:
    """The rows that a proportion is counted on; None where `name` is none (F1, the AUC)."""
    rows = {
        "accuracy": np.ones_like(truth_N),
        "sensitivity": truth_N,
        "specificity": ~truth_N,
        "precision": called_N,
        "npv": ~called_N,
    }
    return rows.get(name)


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
                None if (rows := _counted_on(name, truth_N, called_N)) is None else patient_N[rows],
            )
            for name, interval in found.items()
        },
    }


def measure_categorical(
    truth_N: npt.NDArray[np.int64],
    p_NL: Floats,
    patient_N: npt.NDArray[Any],
    labels: Sequence[str],
    how: Resampling,
) -> Json:
    """Counts and measures of a head with more than two labels; truth as index into `labels`.

    The label called is the most probable one, the first of equals. The macro AUC is the mean of
    the one-against-the-rest AUCs, undefined where one of them is.
    """

    def one(label: int) -> Metric:
        return lambda truth, p, weight: binary.roc_auc(truth == label, p[:, label], weight)

    each = [one(index) for index in range(len(labels))]

    def right(truth: Any, p: Floats, weight: Floats) -> Floats:
        return binary.share(truth == p.argmax(axis=1), p, weight)

    def macro(truth: Any, p: Floats, weight: Floats) -> Floats:
        found: Floats = np.mean([metric(truth, p, weight) for metric in each], axis=0)
        return found

    metrics: dict[str, Metric] = {"accuracy": right, "macro_roc_auc": macro}
    metrics |= {f"roc_auc/{label}": metric for label, metric in zip(labels, each, strict=True)}
    found = bootstrap(metrics, truth_N, p_NL, patient_N, **vars(how))
    counts = [int((truth_N == index).sum()) for index in range(len(labels))]
    absent = [label for label, count in zip(labels, counts, strict=True) if not count]
    reason = "no row has a label"
    if len(truth_N):
        reason = f"no row is {', '.join(absent)}" if absent else "every row is of one label"
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    if len(truth_N):
        matrix = confusion_matrix(truth_N, p_NL.argmax(axis=1), labels=range(len(labels)))
    return {
        "rows": len(truth_N),
        "patients": len(set(patient_N.tolist())),
        "counts": dict(zip(labels, counts, strict=True)),
        "accuracy": as_json(found["accuracy"], reason, patient_N),
        "macro_roc_auc": as_json(found["macro_roc_auc"], reason),
        "roc_auc": {label: as_json(found[f"roc_auc/{label}"], reason) for label in labels},
        "confusion": matrix.tolist(),
    }


def _delong(truth_N: Bools, p_N: Floats) -> Json:
    found = delong(truth_N, p_N)
    if found is None:
        reason = why_undefined(truth_N) or "fewer than two rows of a class"
        return {"se": None, "low": None, "high": None, "reason": reason}
    interval = {"se": found.se, "low": found.low, "high": found.high}
    return interval if found.low is not None else {**interval, "reason": "the AUC is 0 or 1"}


def _wilson(truth_N: Bools, p_N: Floats, threshold: float) -> dict[str, list[float] | None]:
    """Score intervals of the proportions, rows as independent; F1 and LRs are none."""
    counts = binary.confusion(truth_N, p_N, threshold)
    hit, missed = counts.true_positive, counts.false_negative
    alarm, passed = counts.false_positive, counts.true_negative
    proportions = {
        "accuracy": (hit + passed, len(truth_N)),
        "sensitivity": (hit, hit + missed),
        "specificity": (passed, passed + alarm),
        "precision": (hit, hit + alarm),
        "npv": (passed, passed + missed),
    }
    intervals = {name: binary.wilson(*pair) for name, pair in proportions.items()}
    return {name: list(found) if found else None for name, found in intervals.items()}


def _curves(truth_N: Bools, p_N: Floats, patient_N: npt.NDArray[Any], how: Resampling) -> Json:
    """Points of the ROC and PR curves, without those that lie on a line, and their bands."""
    false_positive, true_positive, _ = roc_curve(truth_N, p_N)
    precision, recall, _ = precision_recall_curve(truth_N, p_N, drop_intermediate=True)
    # Where nothing is recalled precision has no meaning: the curve starts level with its first.
    gained = recall[::-1] > 0
    recall, precision = recall[::-1][gained], precision[::-1][gained]
    recall, precision = np.append(0, recall), np.append(precision[0], precision)

    def points(values: Floats) -> list[float]:
        return [round(float(one), _CURVE_DIGITS) for one in values]

    return {
        "roc": {
            "false_positive_rate": points(false_positive),
            "true_positive_rate": points(true_positive),
            "band": _band(bands.sensitivity_at, truth_N, p_N, patient_N, bands.RATES_AT, how),
        },
        "pr": {
            "recall": points(recall),
            "precision": points(precision),
            "band": _band(bands.precision_at, truth_N, p_N, patient_N, bands.RATES_AT, how),
        },
    }
