"""Two models on the same images: the difference of their AUCs, with interval and p-value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from sonode.console import UserError, counted, say
from train.measures.measure import Resampling
from train.measures.units import Aggregation, any_of, first_rows, score_of, unit_codes
from train.statistics.binary import Bools, Floats, roc_auc, value, wilson_of_none
from train.statistics.bootstrap import bootstrap_difference
from train.statistics.delong import delong_p, ranked_alike

SAME_ORDER = 6
"""Distinct scores from which on one order is no chance (1 in 6! = 720)."""


@dataclass(frozen=True, kw_only=True)
class Versus:
    """One head on one set of images; None where an AUC is undefined."""

    head: str
    """Its name; of a categorical head `NAME=LABEL`, that label against the rest."""
    on: str
    """`all`, or the head's primary set as `evaluate` has it: `malignancy positive`."""
    per: str
    """`image`, `lesion` or `patient`."""
    n_images: int
    n: int
    """Of such units: as many as images, or fewer."""
    n_positive: int
    first: float | None
    second: float | None
    difference: float | None
    """First minus second."""
    low: float | None
    """95 % interval over draws of whole patients. Where both rank each positive and each negative
    alike every draw is 0, and it is what `interval` says. Scores of one order are one score to an
    AUC: no difference. Else (both separate the classes, say) it is how far the AUCs can lie apart
    if as many patients of the rarer class rank alike, by Wilson's upper bound of none."""
    high: float | None
    interval: str | None
    p_value: float | None
    """Of no difference, from the same draws."""
    delong_p: float | None
    """DeLong's test, which takes images for independent: beside the other, not in its place."""


def scores_of(frame: pd.DataFrame) -> list[str]:
    """`HEAD`, or of a categorical head `HEAD=LABEL` for each label, which is against the rest."""
    found = []
    columns = [str(name) for name in frame.columns]
    for head in (it.removesuffix("_truth") for it in columns if it.endswith("_truth")):
        prefix = f"{head}_probability"
        if prefix in columns:
            found.append(head)
        else:
            labels = [it for it in columns if it.startswith(f"{prefix}_")]
            found += [f"{head}={it.removeprefix(f'{prefix}_')}" for it in labels]
    return found


def read_score(frame: pd.DataFrame, score: str) -> tuple[Floats, Floats]:
    """Truth (1, 0, NaN where missing) and probability of one of `scores_of`."""
    head, _, label = score.partition("=")
    truth = frame[f"{head}_truth"]
    column = f"{head}_probability_{label}" if label else f"{head}_probability"
    known = truth == label if label else truth
    truth_N = np.asarray(known.astype("Float64").to_numpy(na_value=np.nan), np.float64)
    return truth_N, np.asarray(frame[column].to_numpy(na_value=np.nan), np.float64)


def compare_head(
    score: str,
    one: pd.DataFrame,
    two: pd.DataFrame,
    primary: tuple[str, str] | None,
    how: Resampling,
    *,
    unit: str = "image",
    aggregation: Aggregation = "mean",
) -> list[Versus]:
    """Compare the AUCs of a head (or `HEAD=LABEL`) in two frames as `Predictions.frame`.

    Rows must be the same images in the same order; of their facts `patient_id` is needed. The
    head's primary set (see `labels.primary_sets`) is compared, too, where there is one and
    either frame has the set's column. Rows whose truth one of the two lacks are left out,
    and counted: a network for ALNM alone has none of a benign lesion, one with malignancy has.

    Raises UserError: the two disagree about the truth.
    """
    found = []
    for on, rows_N in paired_sets(score, one, two, primary, report=unit == "image").items():
        label_N, score_N = (its[rows_N] for its in read_score(one, score))
        rival_N = read_score(two, score)[1][rows_N]
        code_N = unit_codes(one[rows_N], unit)
        truth = any_of(label_N == 1, code_N)
        first, second = (score_of(its, code_N, aggregation) for its in (score_N, rival_N))
        patients = one["patient_id"].to_numpy()[rows_N][first_rows(code_N)]
        aucs = [value(roc_auc, truth, scores) if len(truth) else None for scores in (first, second)]
        facts = dict.fromkeys(("difference", "low", "high", "interval", "p_value", "delong_p"))
        if None not in aucs:
            drawn = bootstrap_difference(roc_auc, truth, first, second, patients, **vars(how))
            facts = {
                "difference": drawn.value,
                "low": drawn.low,
                "high": drawn.high,
                "interval": None,
                "p_value": drawn.p_value,
                "delong_p": delong_p(truth, first, second),
            }
            if ranked_alike(truth, first, second):
                facts |= _of_none(truth, first, second, patients, unit)
        found.append(
            Versus(
                head=score,
                on=on,
                per=unit,
                n_images=int(rows_N.sum()),
                n=len(truth),
                n_positive=int(truth.sum()),
                first=aucs[0],
                second=aucs[1],
                **facts,
            )
        )
    return found


def paired_sets(
    score: str,
    one: pd.DataFrame,
    two: pd.DataFrame,
    primary: tuple[str, str] | None,
    *,
    report: bool = True,
) -> dict[str, Bools]:
    """The rows that both have truth and score of, and those in the primary set: see `compare_head`.

    `report`: whether rows that are left out are reported.
    """
    (label_N, score_N), (other_N, rival_N) = (read_score(frame, score) for frame in (one, two))
    lacking_N = np.stack([np.isnan(label_N), np.isnan(other_N)])
    if (label_N != other_N)[~lacking_N.any(axis=0)].any():
        raise UserError(
            f"{score}: the two predictions disagree about the truth; run the evaluations again"
        )
    alone = int((lacking_N[0] != lacking_N[1]).sum())
    if alone and report:
        say(f"{score}: {counted(alone, 'row')} with a truth in one of the two alone: not compared")
    known_N = ~(lacking_N.any(axis=0) | np.isnan(score_N) | np.isnan(rival_N))
    sets = {"all": known_N}
    if primary is not None:
        name, column = primary
        if known := [frame[column] for frame in (one, two) if column in frame]:
            sets[name] = known_N & known[0].eq(True).fillna(False).to_numpy(bool)
    return sets


def _of_none(
    truth_N: Bools, first_N: Floats, second_N: Floats, patient_N: Any, unit: str
) -> dict[str, Any]:
    """See `Versus.low`: a difference takes a positive, and a negative, that ranks otherwise."""
    ranks_N = rankdata(first_N)
    if len(set(ranks_N)) >= SAME_ORDER and np.array_equal(ranks_N, rankdata(second_N)):
        return {"low": 0.0, "high": 0.0, "interval": f"same order of all {len(ranks_N)} {unit}s"}
    patients = min(len(set(patient_N[truth_N])), len(set(patient_N[~truth_N])))
    return wilson_of_none(patients)
