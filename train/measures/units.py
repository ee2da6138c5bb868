"""What is counted once: an image (one lesion box), a lesion, or a patient.

A lesion or patient with several images has one score, their mean or their maximum, and is positive
if any of them is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from train.statistics.binary import Bools, Floats

Aggregation = Literal["mean", "max"]
UNITS: dict[str, list[str]] = {
    "image": [],
    "lesion": ["patient_id", "lesion_id"],
    "patient": ["patient_id"],
}
"""The columns that tell a unit."""


def unit_codes(rows: pd.DataFrame, unit: str) -> npt.NDArray[np.int64]:
    """Number (N,) of the unit that each row belongs to: 0, 1, ... without gaps."""
    if not UNITS[unit]:
        return np.arange(len(rows))
    found = rows.groupby(UNITS[unit], sort=True, dropna=False).ngroup()
    return np.asarray(found, np.int64)


def of_units(
    rows: pd.DataFrame, head: str, unit: str, how: Aggregation
) -> tuple[Bools, Floats, npt.NDArray[np.object_]]:
    """Truth, score and patient of each unit, of rows that have the truth of a binary head."""
    code_N = unit_codes(rows, unit)
    return (
        any_of(rows[f"{head}_truth"].to_numpy(dtype=bool), code_N),
        score_of(rows[f"{head}_probability"].to_numpy(np.float64), code_N, how),
        rows["patient_id"].to_numpy(dtype=object)[first_rows(code_N)],
    )


def known_units(rows: pd.DataFrame) -> list[str]:
    """The units that a table's columns tell apart."""
    return [unit for unit, columns in UNITS.items() if set(columns) <= set(rows.columns)]


def distinct_units(rows: pd.DataFrame) -> list[str]:
    """The known units without those that are images, and without lesions that are patients."""
    counts = {unit: len(set(unit_codes(rows, unit).tolist())) for unit in known_units(rows)}
    of_patients = counts.get("patient")
    return [
        unit
        for unit, count in counts.items()
        if unit == "image"
        or (count != counts["image"] and (unit == "patient" or count != of_patients))
    ]


def units_to_show(heads: Mapping[str, Any]) -> list[str]:
    """The units of metrics.json's heads; no lesions where everywhere they are images or patients.

    As many of them are the same ones: a lesion is of one patient.
    """
    counts = [
        {unit: levels[unit]["rows"] + levels[unit]["mixed"] for unit in UNITS}
        for head in heads.values()
        for levels in head["sets"].values()
    ]
    alike = any(all(it["lesion"] == it[unit] for it in counts) for unit in ("image", "patient"))
    return [unit for unit in UNITS if unit != "lesion" or not alike]


def first_rows(code_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The first row of each unit, in order of code."""
    found: npt.NDArray[np.int64] = np.unique(code_N, return_index=True)[1]
    return found


def any_of(event_N: Bools, code_N: npt.NDArray[np.int64]) -> Bools:
    """Whether the event is true in any row of each unit."""
    return np.bincount(code_N, weights=event_N, minlength=_count(code_N)) > 0


def mixed(event_N: Bools, code_N: npt.NDArray[np.int64]) -> int:
    """How many units have rows with the event and rows without."""
    return int((any_of(event_N, code_N) & any_of(~event_N, code_N)).sum())


def score_of(score_N: Floats, code_N: npt.NDArray[np.int64], how: Aggregation) -> Floats:
    """The score of each unit."""
    if how == "max":
        found = np.full(_count(code_N), -np.inf)
        np.maximum.at(found, code_N, score_N)
        return found
    count = _count(code_N)
    total = np.bincount(code_N, weights=score_N, minlength=count)
    return np.asarray(total / np.bincount(code_N, minlength=count), np.float64)


def _count(code_N: npt.NDArray[np.int64]) -> int:
    return int(code_N.max(initial=-1)) + 1
