"""External validation: the development cohort's test part beside cohorts of other hospitals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pandas as pd

from model_def.heads import HeadSpec
from sonode.console import counted
from sonode.defaults import BOOTSTRAP_DRAWS
from sonode.files.metrics import DEVELOPMENT, FORMAT
from train.external.recalibration import recalibrated
from train.fitting.predictions import Predictions
from train.measures.evaluate import evaluate
from train.measures.measure import Json, Resampling, as_json
from train.measures.sets import sets_of
from train.measures.subgroups import adjust
from train.measures.units import UNITS, Aggregation, of_units
from train.statistics import binary
from train.statistics.binary import Metric
from train.statistics.bootstrap import bootstrap, bootstrap_unpaired


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

    Raises UserError: as `evaluate`.
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
    sides = [
        of_units(_primary(head, its), head.name, unit, aggregation) for its in (other, development)
    ]
    metrics: dict[str, Metric] = {
        "roc_auc": binary.roc_auc,
        "sensitivity": partial(binary.sensitivity, threshold=head.threshold),
        "specificity": partial(binary.specificity, threshold=head.threshold),
    }
    found = {}
    for name, metric in metrics.items():
        drawn = bootstrap_unpaired(metric, sides[0], sides[1], **vars(how))
        found[name] = as_json(drawn, "it is undefined in one of the two cohorts")
        if not drawn.alike:
            continue
        if drawn.p_value is None:
            found[name]["no_interval"] = "all draws of one cohort are equal"
        if name == "roc_auc":
            continue
        counted_on = [who[truth == (name == "sensitivity")] for truth, _, who in sides]
        rates = [
            as_json(bootstrap({"": metric}, *side, **vars(how))[""], "", whose)
            for side, whose in zip(sides, counted_on, strict=True)
        ]
        if all(it["low"] is not None for it in rates):
            one, two = (len(set(whose)) for whose in counted_on)
            found[name] |= binary.newcombe(*((it["value"], it["low"], it["high"]) for it in rates))
            found[name]["interval"] = f"Newcombe, {one} and {counted(two, 'patient')}"
            del found[name]["no_interval"]
    return found
