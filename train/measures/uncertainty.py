"""Whether label sets and the out-of-distribution flag keep what the model card promises.

And, of several members, whether their spread tells wrong results from right ones.

Every share is the mean over patients of the share of a patient's images: what the card promises is
about an image of a new patient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from model_def.heads import HeadSpec
from train.fitting.predictions import Predictions
from train.measures.measure import Json, Resampling, as_json, why_undefined
from train.statistics.binary import Bools, Floats, roc_auc, share
from train.statistics.bootstrap import bootstrap


def measure_uncertainty(predictions: Predictions, how: Resampling) -> Json | None:
    """Coverage, uncertain results, flags and spread on these rows; None where there is none."""
    heads, frame = predictions.heads, predictions.frame
    card = predictions.about.get("model")
    limit = card.get("out_of_distribution") if isinstance(card, dict) else None  # forests have none
    found = {
        head.name: _of_head(head, heads, frame, how)
        for head in heads
        if head.label_sets is not None
    }
    spreads = {
        head.name: _of_spread(head, heads, frame, how)
        for head in heads
        if f"{head.name}_spread" in frame
    }
    if not found and not spreads and limit is None:
        return None
    flag = None
    if limit is not None:
        flag = dict(limit)
        if limit["limit"] is not None:
            flagged = frame["out_of_distribution"].to_numpy(bool)
            flag["flagged"] = _share(flagged, frame["patient_id"], "no row", how)
    return {"heads": found, "spread": spreads, "out_of_distribution": flag}


def _of_head(
    head: HeadSpec, heads: Sequence[HeadSpec], frame: pd.DataFrame, how: Resampling
) -> Json:
    sets = head.label_sets
    assert sets is not None
    facts = {"level": sets.level, "given": sets.given, "calibration_patients": sets.patients}
    if sets.least is None:
        return {**facts, "why": sets.why}
    rows = frame[_spoken_of(head, sets.given, heads, frame)]
    truth = rows[f"{head.name}_truth"]
    if not head.categorical:
        truth = truth.map({False: head.labels[0], True: head.labels[1]})
    uncertain_N = rows[f"{head.name}_uncertain"].to_numpy(bool)
    pairs = list(zip(truth, rows[f"{head.name}_label_set"], strict=True))
    covered_N = np.array([its in within for its, within in pairs], bool)
    by_label = {}
    for label in head.labels:
        of_N = (truth == label).to_numpy(bool)
        patients = rows["patient_id"][of_N]
        reason = f"no row is {label}"
        by_label[label] = {
            "rows": int(of_N.sum()),
            "patients": int(patients.nunique()),
            "covered": _share(covered_N[of_N], patients, reason, how),
            "certain_and_wrong": _share((~covered_N & ~uncertain_N)[of_N], patients, reason, how),
            "uncertain": _share(uncertain_N[of_N], patients, reason, how),
        }
    return {
        **facts,
        "rows": len(rows),
        "uncertain": _share(uncertain_N, rows["patient_id"], "no row has a label", how),
        "labels": by_label,
        "roc_auc": None
        if head.categorical
        else {
            "all": _auc(head, rows, how),
            "certain": _auc(head, rows[~uncertain_N], how),
        },
    }


def _of_spread(
    head: HeadSpec, heads: Sequence[HeadSpec], frame: pd.DataFrame, how: Resampling
) -> Json:
    """ROC AUC of wrong labels, by three scores that should be higher where the label is wrong.

    The spread of the members; how near the probability is to the threshold, which one network knows
    alone (of a categorical head: how small that of its label is); and whether the result is
    uncertain. All on the rows that the probability speaks of.
    """
    sets = head.label_sets
    rows = frame[_spoken_of(head, head.given if sets is None else sets.given, heads, frame)]
    truth = rows[f"{head.name}_truth"]
    if head.categorical:
        columns = [f"{head.name}_probability_{label}" for label in head.labels]
        p_NL = rows[columns].to_numpy(np.float64)
        wrong_N = np.asarray(head.labels, object)[p_NL.argmax(axis=1)] != truth.to_numpy(object)
        near_N = -p_NL.max(axis=1)
    else:
        p_N = rows[f"{head.name}_probability"].to_numpy(np.float64)
        wrong_N = (p_N > head.threshold) != truth.to_numpy(bool)
        near_N = -np.abs(p_N - head.threshold)
    spread_N = rows[f"{head.name}_spread"].to_numpy(np.float64)
    scores = {"spread": spread_N, "near_threshold": near_N}
    if f"{head.name}_uncertain" in rows:
        scores["uncertain"] = rows[f"{head.name}_uncertain"].to_numpy(np.float64)
    patient_N, reason = rows["patient_id"].to_numpy(object), "all right, or all wrong"
    return {
        "rows": len(rows),
        "wrong": int(wrong_N.sum()),
        "median": {
            name: float(np.median(spread_N[of_N])) if of_N.any() else None
            for name, of_N in (("right", ~wrong_N), ("wrong", wrong_N))
        },
        "roc_auc_of_wrong": {
            name: as_json(
                bootstrap({"": roc_auc}, wrong_N, score_N, patient_N, **vars(how))[""], reason
            )
            for name, score_N in scores.items()
        },
    }


def _spoken_of(
    head: HeadSpec, given: str | None, heads: Sequence[HeadSpec], frame: pd.DataFrame
) -> pd.Series[bool]:
    """The rows that a promise is about: with the head's label, and positive for `given`."""
    known = frame[f"{head.name}_truth"].notna()
    if given is None:
        return known
    columns = [f"{other.name}_truth" for other in heads if other.target == given]
    return known & frame[[*columns, given][0]].fillna(False).astype(bool)


def _share(event_N: Bools, patient_N: pd.Series, reason: str, how: Resampling) -> Json:
    by_patient = pd.Series(event_N, dtype=float).groupby(patient_N.to_numpy(object)).mean()
    names, none = by_patient.index.to_numpy(object), np.empty(0)
    of_each: Floats = np.asarray(by_patient, np.float64)
    drawn = bootstrap({"": share}, of_each, none, names, **vars(how))
    return as_json(drawn[""], reason, names)


def _auc(head: HeadSpec, rows: pd.DataFrame, how: Resampling) -> Json:
    truth_N = rows[f"{head.name}_truth"].to_numpy(bool)
    p_N = rows[f"{head.name}_probability"].to_numpy(np.float64)
    drawn = bootstrap({"": roc_auc}, truth_N, p_N, rows["patient_id"].to_numpy(object), **vars(how))
    return {"rows": len(rows), **as_json(drawn[""], why_undefined(truth_N) or "undefined")}
