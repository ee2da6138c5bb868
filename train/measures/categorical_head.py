"""The measures of a head with more than two labels on one set of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix

from train.measures.measure import Json, Resampling, as_json
from train.statistics import binary
from train.statistics.binary import Floats, Metric
from train.statistics.bootstrap import bootstrap


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
