"""Two models on the same images: where they agree, how far scores move, what that does to errors.

Everything is paired: row by row the same image. Frames are as `Predictions.frame`, with the label
that each head gave in NAME_label beside its probabilities. `a` is the present archive, `b` the new
one; a difference is b minus a. Shapes in names: N rows, B draws.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from scipy.stats import norm

from train.comparing.auc_difference import (
    Versus,
    compare_head,
    paired_sets,
    read_score,
    scores_of,
)
from train.comparing.paired import paired_rates, right_of_both, share_difference
from train.measures.measure import Json, Resampling, as_json
from train.measures.units import distinct_units
from train.statistics.binary import Floats, divide, share
from train.statistics.bootstrap import bootstrap


def kappa(first_N: Floats, second_N: Floats, weight_BN: Floats) -> Floats:
    """Cohen's kappa of two sets of calls: agreement beyond chance (Cohen 1960), at most 1.

    Undefined where both call everything alike: chance alone would agree.
    """
    total_B = weight_BN.sum(axis=1)
    agreed_B = weight_BN @ (first_N == second_N)
    chance_B = np.zeros(len(weight_BN))  # times the rows, in whole numbers: 0 is 0
    for label in np.union1d(first_N, second_N):
        chance_B += (weight_BN @ (first_N == label)) * (weight_BN @ (second_N == label))
    return divide(total_B * agreed_B - chance_B, total_B**2 - chance_B)


def flipped(first_N: Floats, second_N: Floats, weight_BN: Floats) -> Floats:
    """Share of rows that the two call differently."""
    return share(first_N != second_N, np.empty(0), weight_BN)


def limits_of_agreement(difference_N: Floats) -> tuple[float, float]:
    """Where 95 % of differences are expected: mean ± 1.96 SD; NaN with fewer than two rows.

    Bland & Altman, Lancet 327 (1986) 307-310. Rows are taken as independent.
    """
    if len(difference_N) < 2:
        return math.nan, math.nan
    half = float(norm.ppf(0.975) * difference_N.std(ddof=1))
    middle = float(difference_N.mean())
    return middle - half, middle + half


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    heads: Mapping[str, Sequence[str]],
    how: Resampling,
    primary: Mapping[str, tuple[str, str]],
) -> dict[str, Json]:
    """All measures of each head (name -> labels) on rows that both have scored.

    `primary`: sets on which AUCs are compared beside all rows, by head; see `primary_sets`.
    """
    return {
        name: _head(name, labels, a, b, how, primary.get(name)) for name, labels in heads.items()
    }


def _head(
    name: str,
    labels: Sequence[str],
    a: pd.DataFrame,
    b: pd.DataFrame,
    how: Resampling,
    primary: tuple[str, str] | None,
) -> Json:
    place = {label: index for index, label in enumerate(labels)}
    called = [np.asarray(frame[f"{name}_label"].map(place), np.float64) for frame in (a, b)]
    patient_N = a["patient_id"].to_numpy()
    agreed = bootstrap(
        {"kappa": kappa, "flips": flipped}, called[0], called[1], patient_N, **vars(how)
    )
    pairs = Counter(zip(*(calls.tolist() for calls in called), strict=True))
    scores = [score for score in scores_of(a) if score.partition("=")[0] == name]
    reason = "no row was scored by both"
    return {
        "labels": list(labels),
        "rows": len(a),
        "patients": a["patient_id"].nunique(),
        "kappa": as_json(agreed["kappa"], "both call every row alike" if len(a) else reason),
        "flips": {
            **as_json(agreed["flips"], reason, patient_N),
            "count": int((called[0] != called[1]).sum()),
            "from_to": {
                f"{labels[int(one)]} to {labels[int(two)]}": count
                for (one, two), count in sorted(pairs.items())
                if one != two
            },
        },
        "shift": {score: _shift(score, a, b, how) for score in scores},
        "auc": [
            _auc(found) for score in scores for found in compare_head(score, b, a, primary, how)
        ],
        "right": _right(name, labels, a, called, how),
        "units": {
            unit: _unit(name, unit, a, b, how, primary)
            for unit in distinct_units(a)
            if unit != "image" and len(labels) == 2
        },
    }


def _auc(found: Versus) -> Json:
    """`found` of b, then a."""
    facts = asdict(found)
    return {
        "score": facts.pop("head"),
        "b": facts.pop("first"),
        "a": facts.pop("second"),
        **facts,
    }


def _shift(score: str, a: pd.DataFrame, b: pd.DataFrame, how: Resampling) -> Json:
    """How far a probability moves: the mean with its interval, and limits of agreement."""
    difference_N = read_score(b, score)[1] - read_score(a, score)[1]
    mean = bootstrap({"mean": share}, difference_N, difference_N, a["patient_id"], **vars(how))
    low, high = limits_of_agreement(difference_N)
    return {
        "mean": as_json(mean["mean"], "no row was scored by both"),
        "limits": None if math.isnan(low) else [low, high],
        "largest": float(np.abs(difference_N).max()) if len(difference_N) else None,
    }


def _right(
    name: str, labels: Sequence[str], a: pd.DataFrame, called: Sequence[Floats], how: Resampling
) -> dict[str, Json]:
    """What of the truth each calls rightly; of a categorical head the accuracy."""
    place = {label: index for index, label in enumerate(labels)}
    truth = a[f"{name}_truth"]
    code_N: Floats
    if len(labels) > 2:
        code_N = np.asarray(truth.map(place).astype("Float64").to_numpy(na_value=np.nan), float)
        subsets = {"accuracy": ~np.isnan(code_N)}
    else:
        code_N = np.asarray(truth.astype("Float64").to_numpy(na_value=np.nan), float)
        subsets = {"sensitivity": code_N == 1, "specificity": code_N == 0}
    found = {}
    for what, rows_N in subsets.items():
        right_a, right_b = ((calls == code_N)[rows_N] for calls in called)
        found[what] = as_b_minus_a(right_of_both(right_b, right_a, a["patient_id"][rows_N], how))
    return found


def as_b_minus_a(found: Json) -> Json:
    """`right_of_both` of b, then a."""
    return {
        "rows": found["rows"],
        "a": found["second"],
        "b": found["first"],
        "difference": found["difference"],
        "lost": found["gained"],
        "gained": found["lost"],
        "mcnemar_p": found["mcnemar_p"],
    }


def _unit(
    name: str,
    unit: str,
    a: pd.DataFrame,
    b: pd.DataFrame,
    how: Resampling,
    primary: tuple[str, str] | None,
) -> Json:
    """AUC and rates of a binary head per lesion or patient, whose score is the mean."""
    found = compare_head(name, b, a, primary, how, unit=unit)
    column, rates = f"{name}_threshold", {}
    if len(a) and all(column in frame for frame in (a, b)):
        rows_N = paired_sets(name, a, b, None, report=False)["all"]
        paired = paired_rates(
            a[rows_N],
            read_score(a, name)[0][rows_N] == 1,
            [read_score(frame, name)[1][rows_N] for frame in (b, a)],
            [float(frame[column].iloc[0]) for frame in (b, a)],
            unit,
            "mean",
            how,
        )
        rates = {rate: as_b_minus_a(its) for rate, its in paired.items()}
    return {"auc": [_auc(it) for it in found], "right": rates}


def inconsistency(a: pd.DataFrame, b: pd.DataFrame, how: Resampling) -> Json:
    """Rows in which a head is positive and its parent is not, of each, and the difference."""
    bad = [~frame["consistent"].to_numpy(bool) for frame in (a, b)]
    reason = "no row was scored by both"
    return {
        "rows": len(a),
        "a": int(bad[0].sum()),
        "b": int(bad[1].sum()),
        "difference": share_difference(bad[1], bad[0], a["patient_id"], how, reason),
    }
