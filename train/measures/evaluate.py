"""Predictions -> every measure of every head, on images and on patients, as one JSON object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from model_def.heads import HeadSpec
from sonode.console import UserError
from sonode.defaults import BOOTSTRAP_DRAWS
from sonode.files.metrics import FORMAT
from train.cohorts.folds import fold_names
from train.fitting.predictions import Predictions
from train.measures.binary_head import measure_binary
from train.measures.categorical_head import measure_categorical
from train.measures.coherence import measure_inconsistency, price
from train.measures.fold_figures import FOLD, measure_folds
from train.measures.measure import Json, Resampling
from train.measures.sets import (
    judged_on,
    operating_points,
    probability_columns,
    sets_of,
    truth_of_rows,
)
from train.measures.subgroups import adjust, subgroups
from train.measures.uncertainty import measure_uncertainty
from train.measures.units import (
    UNITS,
    Aggregation,
    any_of,
    first_rows,
    mixed,
    of_units,
    score_of,
    unit_codes,
)
from train.statistics.binary import Floats
from train.statistics.interaction import PERMUTATIONS


def evaluate(
    predictions: Predictions,
    *,
    resamples: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
    aggregation: Aggregation = "mean",
) -> Json:
    """The whole of `metrics.json`; no NaN in it, and nothing that names a patient or an image.

    The score of a lesion or patient is the mean (or maximum) over its rows in the set; it is
    positive if any of these rows is, and those whose rows disagree are counted as `mixed`. Of a
    categorical head it is always the mean, since the maxima of its labels do not sum to 1.

    Raises UserError: a probability lies outside 0..1 or is not a number.
    """
    heads, frame = predictions.heads, predictions.frame.reset_index(drop=True)
    predictions = replace(predictions, frame=frame)
    how = Resampling(resamples=resamples, seed=seed)
    for head in heads:
        _check_probabilities(frame, head)
    measured = {head.name: _evaluate_head(head, predictions, aggregation, how) for head in heads}
    pairs = [
        (head, measure_inconsistency(frame, parent, head, at, thresholds, unit, aggregation, how))
        for head in heads
        for parent in heads
        if head.parent == parent.name and not head.categorical
        for at, thresholds in _pairs_of_thresholds(parent, head).items()
        for unit in UNITS
    ]
    groups = {
        head.name: subgroups(frame[on.rows], head, aggregation, how)
        for head in heads
        if not head.categorical
        for on in list(sets_of(head, heads, frame).values())[:1]
    }
    return {
        "format": FORMAT,
        "about": predictions.about,
        "notes": _notes(predictions.about),
        "hierarchy": predictions.hierarchy,
        "method": {
            "resamples": resamples,
            "seed": seed,
            "confidence": 0.95,
            "aggregation": aggregation,
            "permutations": PERMUTATIONS,
            "interaction_tests": adjust([groups]),
        },
        "rows": len(frame),
        "patients": int(frame["patient_id"].nunique()),
        "heads": measured,
        "folds": {
            head.name: {
                "on": on,
                **measure_folds(head, frame[its.rows], fold_names(frame[FOLD]), aggregation, how),
            }
            for head in heads
            if FOLD in frame and not head.categorical
            for on, its in list(sets_of(head, heads, frame).items())[:1]
        },
        "inconsistency": [
            {**pair, "price": price(pair, measured, head, predictions, aggregation, how)}
            for head, pair in pairs
        ],
        "uncertainty": measure_uncertainty(predictions, how),
        "subgroups": groups,
    }


def _check_probabilities(frame: pd.DataFrame, head: HeadSpec) -> None:
    for column in probability_columns(head):
        wrong = int((~frame[column].between(0, 1)).sum())
        if wrong:
            raise UserError(
                f"head {head.name}: {wrong} of {len(frame)} probabilities are not numbers in "
                "0..1; the checkpoint is damaged; train it again"
            )


def _notes(about: Json) -> list[str]:
    """What the figures say against themselves."""
    if about.get("part") != "val":
        return []
    chosen = "Temperatures" if about["training"].get("keep") == "last" else "Epoch, temperatures"
    evidence = "the test part is"
    if about["trained_on"].get("fold") is not None:
        evidence = "predictions of all folds (`sonode train folds`) are"
    return [
        f"{chosen} and thresholds were chosen on the validation part of the training: where its "
        "images are evaluated, calibration and operating points look better than they are; "
        f"{evidence} the evidence."
    ]


def _evaluate_head(
    head: HeadSpec, predictions: Predictions, aggregation: Aggregation, how: Resampling
) -> Json:
    heads, frame = predictions.heads, predictions.frame
    sets = sets_of(head, heads, frame)
    measured = {}
    for name, on in sets.items():
        rows = frame[on.rows]
        if head.categorical:
            measured[name] = _measure_categorical(head, rows, how)
        else:
            judged = judged_on(head, predictions.hierarchy, on, frame)
            measured[name] = _measure_binary(head, rows, judged, aggregation, how)
    return {
        "kind": "categorical" if head.categorical else "binary",
        "target": head.target,
        "labels": list(head.labels),
        "parent": head.parent,
        "given": head.given,
        "threshold": head.threshold,
        "operating_points": {} if head.categorical else operating_points(head),
        "missing": int(frame[f"{head.name}_truth"].isna().sum()),
        "primary": next(iter(sets)),
        "sets": measured,
    }


def _measure_binary(
    head: HeadSpec,
    rows: pd.DataFrame,
    judged: tuple[Floats | None, str],
    aggregation: Aggregation,
    how: Resampling,
) -> Json:
    points, (judged_N, words) = operating_points(head), judged
    found: Json = {}
    for unit in UNITS:
        code_N = unit_codes(rows, unit)
        judged_U = None if judged_N is None else score_of(judged_N, code_N, aggregation)
        truth_U, p_U, patient_U = of_units(rows, head.name, unit, aggregation)
        found[unit] = {
            "mixed": mixed(truth_of_rows(rows, head), code_N),
            **measure_binary(truth_U, p_U, (judged_U, words), patient_U, points, how),
        }
    return found


def _measure_categorical(head: HeadSpec, rows: pd.DataFrame, how: Resampling) -> Json:
    """As for two labels, but a unit whose rows disagree has no one truth and is left out."""
    code_N = pd.Categorical(rows[f"{head.name}_truth"], categories=list(head.labels)).codes
    truth_N, patient_N = code_N.astype(np.int64), rows["patient_id"].to_numpy(dtype=object)
    assert (truth_N >= 0).all(), "a label that the head does not have"
    p_NL = rows[probability_columns(head)].to_numpy(np.float64)
    found: Json = {}
    for unit in UNITS:
        unit_N = unit_codes(rows, unit)
        first_U = first_rows(unit_N)
        differs_N = truth_N != truth_N[first_U][unit_N]
        agreed_U = ~any_of(differs_N, unit_N)
        p_UL = np.stack([score_of(p_N, unit_N, "mean") for p_N in p_NL.T], axis=1)
        chosen_U = first_U[agreed_U]
        found[unit] = {
            "mixed": int((~agreed_U).sum()),
            **measure_categorical(
                truth_N[chosen_U], p_UL[agreed_U], patient_N[chosen_U], head.labels, how
            ),
        }
    return found


def _pairs_of_thresholds(parent: HeadSpec, child: HeadSpec) -> dict[str, tuple[float, float]]:
    """The paper's 0.5 for both, the thresholds that are served, and those of a rule that both have.

    Each pair of thresholds once.
    """
    above, below = (operating_points(head) for head in (parent, child))
    pairs = {"0.5": (0.5, 0.5), "served": (parent.threshold, child.threshold)}
    pairs |= {name: (above[name], below[name]) for name in above if name in below}
    names = {
        thresholds: name for name, thresholds in reversed(pairs.items())
    }  # the first of equals
    return {name: thresholds for name, thresholds in pairs.items() if names[thresholds] == name}
