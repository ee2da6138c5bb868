"""External validation: the development cohort's test part beside cohorts of other hospitals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model_def.heads import HeadSpec
from sonode.defaults import BOOTSTRAP_DRAWS
from sonode.metrics_file import DEVELOPMENT, FORMAT
from train.external.recalibration import recalibrated
from train.fitting.predictions import Predictions
from train.measures.evaluate import evaluate, sets_of, truth_of_rows
from train.measures.measure import Json, Resampling, as_json
from train.measures.subgroups import adjust
from train.measures.units import UNITS, Aggregation, any_of, first_rows, score_of, unit_codes
from train.statistics import binary
from train.statistics.binary import Bools, Floats, Metric
from train.statistics.bootstrap import bootstrap_unpaired


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
    its patients, measured on the others, over many choices of them.

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
        "recalibration": recalibrated(head, other, recalibrate, how.seed),
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
