"""The further columns of a cohort that evidence takes along, and those that may name a patient."""

from __future__ import annotations

import pandas as pd

from sonode.console import say
from train.cohorts.cohort import Cohort

SMALLEST_NUMBER = 1000
"""Whole numbers from here on may be record numbers; ages, grades and sizes are smaller."""


def carried_columns(cohort: Cohort) -> list[str]:
    """Further columns (age, BI-RADS, histology, size) to keep beside predictions.

    A column may name patients where more than half of them have a value that no other patient has,
    and the values are text, or whole numbers from `SMALLEST_NUMBER` on. Such columns are left out,
    which is reported, as is a column with a name as predictions have (`x_truth`).
    """
    kept, naming, taken = [], [], []
    for name in (*cohort.covariates, *cohort.categorical):
        if name.endswith("_truth") or "_probability" in name:
            taken.append(name)
        elif may_name_patients(cohort.table["patient_id"], cohort.table[name]):
            naming.append(name)
        else:
            kept.append(name)
    if naming:
        say(
            f"column {', '.join(naming)}: left out of the predictions; most patients have a value "
            "of their own in it, so it may name them"
        )
    if taken:
        say(f"column {', '.join(taken)}: left out of the predictions, which have such names")
    return kept


def may_name_patients(patient_N: pd.Series, value_N: pd.Series) -> bool:
    """See `carried_columns`."""
    known = pd.DataFrame({"patient": patient_N.astype(str), "value": value_N}).dropna()
    if pd.api.types.is_numeric_dtype(known["value"]):
        number_N = known["value"].astype(float)
        if not ((number_N % 1 == 0) & (number_N.abs() >= SMALLEST_NUMBER)).all():
            return False
    shared_by = known.groupby("value")["patient"].transform("nunique")
    own = known[shared_by == 1]["patient"].nunique()
    return bool(2 * own > known["patient"].nunique())
