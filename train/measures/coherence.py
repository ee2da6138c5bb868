"""Where parent and child contradict each other, and what it costs that they do not.

The rates of both at one operating point stand beside their errors. In a chain a child's probability
is a product, never above its parent's: at 0.5 it misses more than the conditional probability
would, and needs a threshold of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from model_def.heads import HeadSpec
from train.fitting.predictions import Predictions
from train.measures.measure import Json, Resampling, as_json, why_undefined
from train.statistics import binary
from train.statistics.binary import Bools, Floats, inconsistency, share
from train.statistics.bootstrap import bootstrap

RATES: dict[str, Any] = {"sensitivity": binary.sensitivity, "specificity": binary.specificity}


def measure_inconsistency(
    frame: pd.DataFrame,
    parent: HeadSpec,
    child: HeadSpec,
    at: str,
    thresholds: tuple[float, float],
    how: Resampling,
) -> Json:
    """Both errors of one pair of heads, over the rows whose parent label is known, and by class.

    `thresholds`: of parent and child; `at` names them. Where the parent's label is missing the type
    of error is unknown: such rows are counted apart and are no part of either share.
    """
    at_parent, at_child = thresholds
    truth_N = frame[f"{parent.name}_truth"].to_numpy(dtype=np.float64, na_value=np.nan)
    found = inconsistency(
        truth_N,
        frame[f"{parent.name}_probability"].to_numpy(np.float64),
        frame[f"{child.name}_probability"].to_numpy(np.float64),
        parent_threshold=at_parent,
        child_threshold=at_child,
    )
    patient_N = frame["patient_id"].to_numpy(dtype=object)

    def of(event_N: Bools, rows_N: Bools, reason: str) -> Json:
        none: Floats = np.empty(0)
        drawn = bootstrap({"": share}, event_N[rows_N], none, patient_N[rows_N], **vars(how))
        return as_json(drawn[""], reason, patient_N[rows_N])

    def error(event_N: Bools, class_N: Bools) -> Json:
        known_N = ~np.isnan(truth_N)
        return {
            "count": int(event_N.sum()),
            "rows": int(known_N.sum()),
            "of_all": of(event_N, known_N, f"no row whose {parent.name} is known"),
            "class_rows": int(class_N.sum()),
            "of_class": of(event_N, class_N, "no row of that class"),
        }

    return {
        "parent": parent.name,
        "child": child.name,
        "at": at,
        "thresholds": {"parent": at_parent, "child": at_child},
        "type_1": error(found.type_1_N, truth_N == 0),
        "type_2": error(found.type_2_N, truth_N == 1),
        "parent_label_missing": int(np.isnan(truth_N).sum()),
        "unknown": int(found.unknown_N.sum()),
    }


def price(
    pair: Json, heads: Json, child: HeadSpec, predictions: Predictions, how: Resampling
) -> Json:
    """Of one pair of `metrics.json`'s inconsistency: rates per image, each on its primary set.

    `conditional`: the rates at 0.5 of the child's probability given its parent, on the lesions that
    are positive for the parent; None where that is not what the network predicts, or not at 0.5.
    """
    rates: Json = {}
    for role in ("parent", "child"):
        of = heads[pair[role]]
        points = of["sets"][of["primary"]]["image"]["operating_points"].values()
        point = next(it for it in points if it["threshold"] == pair["thresholds"][role])
        rates[role] = {"on": of["primary"], **{rate: point[rate] for rate in RATES}}
    conditional = None
    if predictions.hierarchy == "chain" and pair["at"] == "0.5":
        conditional = _conditional(pair, child, predictions, how)
    return {**rates, "conditional": conditional}


def _conditional(pair: Json, child: HeadSpec, predictions: Predictions, how: Resampling) -> Json:
    frame = predictions.frame
    positive = frame[f"{pair['parent']}_truth"].fillna(False).astype(bool)
    rows = frame[positive & frame[f"{child.name}_truth"].notna()]
    truth_N: Bools = rows[f"{child.name}_truth"].to_numpy(dtype=bool)
    joint_N, above_N = (
        rows[f"{name}_probability"].to_numpy(np.float64) for name in (child.name, pair["parent"])
    )
    p_N = binary.conditional(joint_N, above_N)
    patient_N = rows["patient_id"].to_numpy(dtype=object)
    metrics = {rate: partial(metric, threshold=0.5) for rate, metric in RATES.items()}
    found = bootstrap(metrics, truth_N, p_N, patient_N, **vars(how))
    reason = why_undefined(truth_N) or "undefined"
    return {
        "on": f"{pair['parent']} positive",
        **{
            rate: as_json(interval, reason, patient_N[truth_N == (rate == "sensitivity")])
            for rate, interval in found.items()
        },
    }
