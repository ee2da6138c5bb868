"""What coherence costs: rates of parent and child at one operating point beside their errors.

In a chain a child's probability is a product, never above its parent's: at 0.5 it misses more than
the conditional probability would, and needs a threshold of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from model_def.heads import HeadSpec
from train.evidence.measures import Json, Resampling, as_json, why_undefined
from train.fitting.predictions import Predictions
from train.statistics import binary
from train.statistics.binary import Bools, Floats
from train.statistics.bootstrap import bootstrap

RATES: dict[str, Any] = {"sensitivity": binary.sensitivity, "specificity": binary.specificity}


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
    p_N: Floats = np.divide(joint_N, above_N, out=np.zeros_like(joint_N), where=above_N > 0)
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
