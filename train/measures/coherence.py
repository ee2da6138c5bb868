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
from train.measures.units import Aggregation, any_of, first_rows, score_of, unit_codes
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
    unit: str,
    aggregation: Aggregation,
    how: Resampling,
) -> Json:
    """Both errors of one pair of heads, over the units whose parent label is known, and by class.

    `thresholds`: of parent and child; `at` names them. A lesion or patient counts by its images
    with the parent's label. One without has an unknown type of error: it is counted apart and is no
    part of either share.
    """
    at_parent, at_child = thresholds
    known_N = frame[f"{parent.name}_truth"].notna().to_numpy(bool)
    code_N = unit_codes(frame, unit)
    rows = frame[known_N | ~any_of(known_N, code_N)[code_N]]
    code_N = unit_codes(rows, unit)
    positive_N = rows[f"{parent.name}_truth"].fillna(False).to_numpy(bool)
    known_U = any_of(rows[f"{parent.name}_truth"].notna().to_numpy(bool), code_N)
    truth_U = np.where(known_U, any_of(positive_N, code_N), np.nan)
    above_U, below_U = (
        score_of(rows[f"{head.name}_probability"].to_numpy(np.float64), code_N, aggregation)
        for head in (parent, child)
    )
    found = inconsistency(
        truth_U, above_U, below_U, parent_threshold=at_parent, child_threshold=at_child
    )
    patient_U = rows["patient_id"].to_numpy(dtype=object)[first_rows(code_N)]

    def of(event_U: Bools, chosen_U: Bools, reason: str) -> Json:
        none: Floats = np.empty(0)
        drawn = bootstrap({"": share}, event_U[chosen_U], none, patient_U[chosen_U], **vars(how))
        return as_json(drawn[""], reason, patient_U[chosen_U])

    def error(event_U: Bools, class_U: Bools) -> Json:
        return {
            "count": int(event_U.sum()),
            "rows": int(known_U.sum()),
            "of_all": of(event_U, known_U, f"no row whose {parent.name} is known"),
            "class_rows": int(class_U.sum()),
            "of_class": of(event_U, class_U, "no row of that class"),
        }

    return {
        "parent": parent.name,
        "child": child.name,
        "per": unit,
        "at": at,
        "thresholds": {"parent": at_parent, "child": at_child},
        "type_1": error(found.type_1_N, truth_U == 0),
        "type_2": error(found.type_2_N, truth_U == 1),
        "parent_label_missing": int((~known_U).sum()),
        "unknown": int(found.unknown_N.sum()),
    }


def price(
    pair: Json,
    heads: Json,
    child: HeadSpec,
    predictions: Predictions,
    aggregation: Aggregation,
    how: Resampling,
) -> Json:
    """Of one pair of `metrics.json`'s inconsistency: rates in its unit, each on its primary set.

    `conditional`: the rates at 0.5 of the child's probability given its parent, on the lesions that
    are positive for the parent; None where that is not what the network predicts, or not at 0.5.
    """
    rates: Json = {}
    for role in ("parent", "child"):
        of = heads[pair[role]]
        points = of["sets"][of["primary"]][pair["per"]]["operating_points"].values()
        point = next(it for it in points if it["threshold"] == pair["thresholds"][role])
        rates[role] = {"on": of["primary"], **{rate: point[rate] for rate in RATES}}
    conditional = None
    if predictions.hierarchy == "chain" and pair["at"] == "0.5":
        conditional = _conditional(pair, child, predictions, aggregation, how)
    return {**rates, "conditional": conditional}


def _conditional(
    pair: Json,
    child: HeadSpec,
    predictions: Predictions,
    aggregation: Aggregation,
    how: Resampling,
) -> Json:
    frame = predictions.frame
    positive = frame[f"{pair['parent']}_truth"].fillna(False).astype(bool)
    rows = frame[positive & frame[f"{child.name}_truth"].notna()]
    code_N = unit_codes(rows, pair["per"])
    truth_U = any_of(rows[f"{child.name}_truth"].to_numpy(dtype=bool), code_N)
    joint_N, above_N = (
        rows[f"{name}_probability"].to_numpy(np.float64) for name in (child.name, pair["parent"])
    )
    p_U = score_of(binary.conditional(joint_N, above_N), code_N, aggregation)
    patient_U = rows["patient_id"].to_numpy(dtype=object)[first_rows(code_N)]
    metrics = {rate: partial(metric, threshold=0.5) for rate, metric in RATES.items()}
    found = bootstrap(metrics, truth_U, p_U, patient_U, **vars(how))
    reason = why_undefined(truth_U) or "undefined"
    return {
        "on": f"{pair['parent']} positive",
        **{
            rate: as_json(interval, reason, patient_U[truth_U == (rate == "sensitivity")])
            for rate, interval in found.items()
        },
    }
