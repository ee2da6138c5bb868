"""ROC AUC of each fold beside the pooled one, and their mean with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from model_def.heads import HeadSpec
from train.measures.measure import Json, Resampling, as_json, why_undefined
from train.measures.units import Aggregation, of_units
from train.statistics.binary import roc_auc
from train.statistics.bootstrap import bootstrap
from train.statistics.folds import mean_of_folds

FOLD = "fold"  # the column of predictions that says which network scored a row
UNITS = ("image", "patient")


def measure_folds(
    head: HeadSpec,
    rows: pd.DataFrame,
    names: Sequence[str],
    aggregation: Aggregation,
    how: Resampling,
) -> Json:
    """By unit: each fold's counts and AUC, and `mean_of_folds` of these.

    `rows`: those of the head's primary set; `names`: of all folds, of which some may have no such
    row. The mean is undefined where the AUC of a fold is.
    """
    found: Json = {}
    for unit in UNITS:
        folds = []
        for name in names:
            own = rows[rows[FOLD] == name]
            truth, score, patient = of_units(own, head.name, unit, aggregation)
            auc = bootstrap({"": roc_auc}, truth, score, patient, **vars(how))[""]
            folds.append(
                {
                    "fold": name,
                    "rows": len(truth),
                    "patients": len(set(patient)),
                    "positive": int(truth.sum()),
                    "roc_auc": as_json(auc, why_undefined(truth) or "undefined"),
                }
            )
        found[unit] = {"folds": folds, "mean": _mean(folds)}
    return found


def _mean(folds: list[Json]) -> Json:
    absent = [its["fold"] for its in folds if its["roc_auc"]["value"] is None]
    if absent or len(folds) < 2:
        reason = f"undefined in fold {', '.join(absent)}" if absent else "one fold only"
        return {"value": None, "sd": None, "low": None, "high": None, "reason": reason}
    values = [its["roc_auc"]["value"] for its in folds]
    found = mean_of_folds(values, [its["patients"] for its in folds])._asdict()
    return found if found["low"] is not None else {**found, "no_interval": "all folds are equal"}
