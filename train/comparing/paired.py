"""Shares of the same rows by two models: their difference with interval, and McNemar's test.

Shapes in names: N rows, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from train.measures.measure import Json, Resampling, as_json
from train.measures.units import Aggregation, any_of, first_rows, score_of, unit_codes
from train.statistics import binary
from train.statistics.binary import Bools, Floats, share
from train.statistics.bootstrap import bootstrap_difference


def mcnemar(lost: int, gained: int) -> float | None:
    """Exact two-sided p-value of as many lost as gained (McNemar 1947, by the binomial).

    `lost`: rows that the first has right and the second has not; `gained`: the other way round.
    None where there is neither. Rows are taken as independent.
    """
    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else None


def share_difference(
    first_N: Bools, second_N: Bools, patient_N: Any, how: Resampling, reason: str
) -> Json:
    """The share in which an event is true, first minus second, with p-value; patients are drawn.

    Where no row has it in one alone, every draw is 0: in the interval's place is how far either
    share can lie from the other, Wilson's upper bound of none among as many patients.
    """
    one_N, two_N = (event_N.astype(np.float64) for event_N in (first_N, second_N))
    drawn = bootstrap_difference(binary.mean, one_N, one_N, two_N, patient_N, **vars(how))
    found = as_json(drawn, reason)
    patients = len(set(patient_N))
    if patients and not (one_N != two_N).any():
        found |= binary.wilson_of_none(patients)
        found.pop("no_interval", None)
    return found


def right_of_both(first_N: Bools, second_N: Bools, patient_N: Any, how: Resampling) -> Json:
    """How many of the rows either has right; the difference is the first minus the second.

    `lost`: right by the first alone; `gained`: by the second alone.
    """
    lost, gained = int((first_N & ~second_N).sum()), int((~first_N & second_N).sum())
    return {
        "rows": len(first_N),
        "first": binary.value(share, first_N, np.empty(0)),
        "second": binary.value(share, second_N, np.empty(0)),
        "difference": share_difference(first_N, second_N, patient_N, how, "no row of that label"),
        "lost": lost,
        "gained": gained,
        "mcnemar_p": mcnemar(lost, gained),
    }


def paired_rates(
    rows: pd.DataFrame,
    truth_N: Bools,
    scores: Sequence[Floats],
    thresholds: Sequence[float],
    unit: str,
    aggregation: Aggregation,
    how: Resampling,
) -> dict[str, Json]:
    """Sensitivity and specificity of two scores of a unit, each at its own threshold."""
    code_N = unit_codes(rows, unit)
    truth_U = any_of(truth_N, code_N)
    patient_U = rows["patient_id"].to_numpy()[first_rows(code_N)]
    called = [
        score_of(score_N, code_N, aggregation) > threshold
        for score_N, threshold in zip(scores, thresholds, strict=True)
    ]
    found = {}
    for rate, event in (("sensitivity", True), ("specificity", False)):
        of_U = truth_U == event
        first_U, second_U = ((its == event)[of_U] for its in called)
        found[rate] = right_of_both(first_U, second_U, patient_U[of_U], how)
    return found
