"""External validation: the development cohort's test part beside cohorts of other hospitals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from model_def.heads import HeadSpec
from sonode.defaults import BOOTSTRAP_DRAWS
from sonode.metrics_file import DEVELOPMENT, FORMAT
from train.fitting.predictions import Predictions
from train.measures.calibration import measure_calibration
from train.measures.evaluate import evaluate, judged_on, sets_of, truth_of_rows
from train.measures.measure import Json, Resampling, as_json
from train.measures.subgroups import adjust
from train.measures.units import UNITS, Aggregation, any_of, first_rows, score_of, unit_codes
from train.statistics import binary, reliability
from train.statistics.binary import Bools, Floats, Metric, value
from train.statistics.bootstrap import bootstrap_unpaired

FEWEST_OF_A_LABEL = 5
"""Patients of each label that a recalibration needs, as the temperature of a training does."""


def external(
    development: Predictions,
    cohorts: Mapping[str, Predictions],
    *,
    recalibrate: int,
    resamples: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
    aggregation: Aggregation = "mean",
) -> Json:
    """The whole of `external.json`; nothing in it names a patient or an image.

    Of each cohort what `evaluate` gives, with Holm's p of the subgroups adjusted for all external
    cohorts; of each binary head and external cohort the differences from the development cohort
    (patients drawn apart), and the calibration before and after a recalibration on `recalibrate` of
    its patients, measured on the others.

    Raises:
        UserError: as `evaluate`.
    """
    how = Resampling(resamples=resamples, seed=seed)
    every = {DEVELOPMENT: development, **cohorts}
    found = {
        name: evaluate(its, resamples=resamples, seed=seed, aggregation=aggregation)
        for name, its in every.items()
    }
    heads = [head for head in development.heads if not head.categorical]
    compared: Json = {
        head.name: {
            name: _compare(head, development, its, aggregation, recalibrate, how)
            for name, its in cohorts.items()
        }
        for head in heads
    }
    tests = adjust(its["subgroups"] for name, its in found.items() if name != DEVELOPMENT)
    return {
        "format": FORMAT,
        "method": {
            **found[DEVELOPMENT]["method"],
            "recalibration_patients": recalibrate,
            "interaction_tests": tests,
        },
        "cohorts": found,
        "compared": compared,
        "not_compared": [head.name for head in development.heads if head.categorical],
    }


def _compare(
    head: HeadSpec,
    development: Predictions,
    other: Predictions,
    aggregation: Aggregation,
    recalibrate: int,
    how: Resampling,
) -> Json:
    on = next(iter(sets_of(head, other.heads, other.frame)))
    return {
        "on": on,
        "differences": {
            unit: _differences(head, development, other, unit, aggregation, how) for unit in UNITS
        },
        "recalibration": _recalibration(head, other, recalibrate, how),
    }


def _primary(head: HeadSpec, of: Predictions) -> pd.DataFrame:
    """The rows of the head's primary set."""
    frame = of.frame.reset_index(drop=True)
    return frame[next(iter(sets_of(head, of.heads, frame).values())).rows]


def _differences(
    head: HeadSpec,
    development: Predictions,
    other: Predictions,
    unit: str,
    aggregation: Aggregation,
    how: Resampling,
) -> Json:
    """The external cohort minus the development one: AUC, and rates at the served threshold."""
    sides = [_units(head, _primary(head, its), unit, aggregation) for its in (other, development)]

    def at_threshold(metric: Any) -> Metric:
        def rate(truth_N: Bools, p_N: Floats, weight_BN: Floats) -> Floats:
            found: Floats = metric(truth_N, p_N, weight_BN, threshold=head.threshold)
            return found

        return rate

    metrics = {
        "roc_auc": binary.roc_auc,
        "sensitivity": at_threshold(binary.sensitivity),
        "specificity": at_threshold(binary.specificity),
    }
    return {
        name: as_json(
            bootstrap_unpaired(metric, sides[0], sides[1], **vars(how)),
            "it is undefined in one of the two cohorts",
        )
        for name, metric in metrics.items()
    }


def _units(
    head: HeadSpec, rows: pd.DataFrame, unit: str, aggregation: Aggregation
) -> tuple[Bools, Floats, npt.NDArray[Any]]:
    code_N = unit_codes(rows, unit)
    p_N = rows[f"{head.name}_probability"].to_numpy(np.float64)
    return (
        any_of(truth_of_rows(rows, head), code_N),
        score_of(p_N, code_N, aggregation),
        rows["patient_id"].to_numpy(dtype=object)[first_rows(code_N)],
    )


def _recalibration(head: HeadSpec, of: Predictions, take: int, how: Resampling) -> Json:
    """Calibration before and after, both on the patients that the recalibration did not take.

    The intercept alone (calibration in the large set to 0), or intercept and slope (Cox 1958), of
    the probability that a set can judge (the primary one before others), per image.
    """
    frame = of.frame.reset_index(drop=True)
    judged = {
        name: (on, *judged_on(head, of.hierarchy, on, frame))
        for name, on in sets_of(head, of.heads, frame).items()
    }
    name = next((name for name, its in judged.items() if its[1] is not None), next(iter(judged)))
    on, judged_N, words = judged[name]
    if judged_N is None:
        return {"reason": words}
    rows = frame[on.rows]
    truth_N, patient_N = truth_of_rows(rows, head), rows["patient_id"].to_numpy(dtype=str)
    patients = np.random.default_rng(how.seed).permutation(np.unique(patient_N))
    taken_N = np.isin(patient_N, patients[:take])
    facts = {
        "on": name,
        "judged": words,
        "patients": min(take, len(patients)),
        "images": int(taken_N.sum()),
    }
    facts["rest_patients"], facts["rest_images"] = len(patients[take:]), int((~taken_N).sum())
    few = min(len(set(patient_N[taken_N & (truth_N == label)])) for label in (True, False))
    facts["fewest_of_a_label"] = few
    if not len(patients[take:]):
        return {**facts, "reason": f"{len(patients)} labelled patients: none is left to measure"}
    if few < FEWEST_OF_A_LABEL:
        return {
            **facts,
            "reason": f"of the {take} patients taken {few} have the rarer label; a recalibration "
            f"needs {FEWEST_OF_A_LABEL}",
        }
    part = truth_N[taken_N], judged_N[taken_N]
    large = value(reliability.calibration_in_the_large, *part)
    line = [
        value(metric, *part)
        for metric in (reliability.calibration_intercept, reliability.calibration_slope)
    ]
    lines: dict[str, tuple[float, float] | str] = {"none": (0.0, 1.0)}
    lines["intercept"] = "undefined" if large is None else (large, 1.0)
    if line[0] is None or line[1] is None:
        lines["intercept and slope"] = (
            "the scores of the patients taken separate the classes, or are all equal"
        )
    elif line[1] <= 0:
        lines["intercept and slope"] = "the labels of the patients taken fall with the score"
    else:
        lines["intercept and slope"] = line[0], line[1]
    logit_N, rest = reliability.logit_of(judged_N), ~taken_N
    after: Json = {}
    for way, found in lines.items():
        if isinstance(found, str):
            after[way] = {"reason": found}
            continue
        p_N = judged_N if way == "none" else expit(found[0] + found[1] * logit_N)
        after[way] = {
            "intercept_added": found[0],
            "slope_times": found[1],
            **{"rows": int(rest.sum()), "positive": int(truth_N[rest].sum())},
            **measure_calibration(truth_N[rest], (p_N[rest], words), patient_N[rest], how),
        }
    return {**facts, "reason": None, "after": after}
