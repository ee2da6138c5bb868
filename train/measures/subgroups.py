"""Patients by device, age, BI-RADS, histology and lesion size: figures, and whether they differ.

A subgroup has a row per patient, whose score is the mean (or maximum) over the patient's rows in
it. Tests are of patients in one subgroup; those in several (two lesions of other sizes) are left
out, and counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from model_def.heads import HeadSpec
from train.measures.binary_head import measure_subgroup
from train.measures.measure import Json, Resampling
from train.measures.units import Aggregation, of_units
from train.statistics.binary import Bools, Floats
from train.statistics.interaction import aucs_differ, holm, shares_differ
from train.tables.texts import AGE, bare_name

NAMES = {
    "device": ("device",),
    "age": AGE,
    "BI-RADS": ("birads", "biradscategory", "biradsassessment"),
    "histology": ("histology", "diagnosis"),
    "lesion size": ("size", "sizemm", "lesionsize", "lesionsizemm", "diameter", "diametermm"),
}
"""Columns that hold a variable, spelt without signs and capitals."""
AGES = (40, 50, 60, 70)
FEWEST_PATIENTS = 10
"""Smaller groups of a variable are put together."""
FEWEST_TESTED = 5
"""Patients of each class that a group needs to be in a test."""


class Groups(NamedTuple):
    """The group of each row (missing where unknown), or why there are none."""

    group: pd.Series | None
    order: list[str]
    source: str
    """What the groups were made from, or why there are none."""


def variables(frame: pd.DataFrame) -> dict[str, Groups]:
    """The groups of each variable of `Predictions.frame`."""
    spelt = {bare_name(str(name)): str(name) for name in frame.columns}
    found = {}
    for variable, names in NAMES.items():
        column = next((spelt[name] for name in names if name in spelt), None)
        number = column is not None and pd.api.types.is_numeric_dtype(frame[column])
        if variable == "lesion size" and not number:
            found[variable] = _thirds(
                _longer_side(frame), "longer side of the box, pixels", " pixels"
            )
        elif column is None or frame[column].isna().all():
            why = "no such column" if column is None else f"column {column} is empty"
            found[variable] = Groups(None, [], why)
        elif variable == "age" and number:
            found[variable] = _bands(frame[column], f"column {column}, years")
        elif variable == "lesion size":
            found[variable] = _thirds(
                frame[column], f"column {column}", " mm" * str(column).endswith("mm")
            )
        else:
            found[variable] = _values(frame[column], frame["patient_id"], f"column {column}")
    return found


def _longer_side(frame: pd.DataFrame) -> pd.Series:
    width, height = (frame[f"roi_{axis}_max"] - frame[f"roi_{axis}_min"] for axis in "xy")
    return pd.concat([width, height], axis=1).max(axis=1)


def _bands(age: pd.Series, source: str) -> Groups:
    names = [f"under {AGES[0]}"]
    names += [f"{low} to {high - 1}" for low, high in itertools.pairwise(AGES)]
    names += [f"{AGES[-1]} or more"]
    return _cut(age, list(AGES), names, source)


def _thirds(size: pd.Series, source: str, unit: str) -> Groups:
    known = size.dropna().astype(float)
    # The value above a third: the same groups as between two values, without made-up digits.
    low, high = (float(it) for it in np.quantile(known, [1 / 3, 2 / 3], method="higher"))
    if low == high:
        return Groups(None, [], f"{source}: a third of all rows have the same value")
    names = [f"under {low:g}{unit}", f"{low:g} to under {high:g}{unit}", f"{high:g}{unit} or more"]
    return _cut(size, [low, high], names, f"{source}, in thirds of the rows")


def _cut(values: pd.Series, at: list[float] | list[int], names: list[str], source: str) -> Groups:
    code = np.digitize(values.astype("Float64").to_numpy(dtype=float, na_value=np.nan), at)
    group = pd.Series([names[place] for place in code], index=values.index, dtype=object)
    return Groups(group.where(values.notna(), None), names, source)


def _values(column: pd.Series, patient: pd.Series, source: str) -> Groups:
    group = column.astype("string").astype(object).where(column.notna(), None)
    patients = patient.astype(str).groupby(group).nunique()
    small = [name for name, count in patients.items() if count < FEWEST_PATIENTS]
    order = sorted(str(name) for name in patients.index if name not in small)
    if len(small) > 1:
        rest = f"{len(small)} others, each of fewer than {FEWEST_PATIENTS} patients"
        return Groups(group.where(~group.isin(small), rest), [*order, rest], source)
    return Groups(group, sorted(map(str, patients.index)), source)


def subgroups(
    frame: pd.DataFrame, head: HeadSpec, aggregation: Aggregation, how: Resampling
) -> list[Json]:
    """Each variable with its groups and tests, of rows that have the head's truth.

    The p-values are not adjusted yet: see `adjust`.
    """
    if frame.empty:
        nothing = Groups(None, [], "no row has the label")
        found = dict.fromkeys(NAMES, nothing)
    else:
        found = variables(frame)
    return [
        {
            "variable": variable,
            "source": groups.source,
            **_measured(frame, groups, head, aggregation, how),
        }
        for variable, groups in found.items()
    ]


def _measured(
    frame: pd.DataFrame, groups: Groups, head: HeadSpec, aggregation: Aggregation, how: Resampling
) -> Json:
    if groups.group is None:
        return {"groups": [], "unknown_rows": len(frame), "tests": {}, "left_out_patients": 0}
    found, patients = [], []
    for name in groups.order:
        rows = frame[groups.group == name]
        one = of_units(rows, head.name, "patient", aggregation)
        found.append({"group": name, **measure_subgroup(*one, head.threshold, how)})
        patients.append(one)
    ids = np.concatenate([one[2] for one in patients])
    names, counts = np.unique(ids.astype(str), return_counts=True)
    alone_N = ~np.isin(ids.astype(str), names[counts > 1])
    group_N = np.repeat(np.arange(len(patients)), [len(one[2]) for one in patients])
    truth_N, score_N = (np.concatenate([one[k] for one in patients]) for k in (0, 1))
    tests = _tests(truth_N[alone_N], score_N[alone_N], group_N[alone_N], head.threshold, how.seed)
    return {
        "groups": found,
        "unknown_rows": int(groups.group.isna().sum()),
        "tests": tests,
        "left_out_patients": int((counts > 1).sum()),
    }


def _tests(
    truth_N: Bools, score_N: Floats, group_N: npt.NDArray[np.int64], threshold: float, seed: int
) -> Json:
    called_N = score_N > threshold
    every: Callable[[Bools], Bools] = np.ones_like
    kinds: dict[str, tuple[tuple[Bools, ...], Bools]] = {
        "roc_auc": ((truth_N, ~truth_N), every(truth_N)),
        "sensitivity": ((truth_N,), truth_N),
        "specificity": ((~truth_N,), ~truth_N),
    }
    found: Json = {}
    for measure, (needed, rows_N) in kinds.items():
        size = int(group_N.max(initial=-1)) + 1
        counts = np.array([np.bincount(group_N[its], minlength=size) for its in needed])
        usable = np.flatnonzero((counts >= FEWEST_TESTED).all(axis=0))
        if len(usable) < 2:
            what = {"roc_auc": "of both classes", "sensitivity": "with a positive label"}
            found[measure] = {
                "p": None,
                "groups": len(usable),
                "reason": f"fewer than two groups have {FEWEST_TESTED} patients "
                + what.get(measure, "with a negative label"),
            }
            continue
        chosen_N = rows_N & np.isin(group_N, usable)
        code_N = np.searchsorted(usable, group_N[chosen_N])
        if measure == "roc_auc":
            p = aucs_differ(truth_N[chosen_N], score_N[chosen_N], code_N, seed)
        else:
            p = shares_differ(called_N[chosen_N], code_N, seed)
        found[measure] = {"p": p, "groups": len(usable), "reason": None}
    return found


def adjust(found: Iterable[Mapping[str, Sequence[Json]]]) -> int:
    """Write Holm's p, for all tests of a page, into those that have a p; gives their number.

    `found`: of each cohort its heads with what `subgroups` gave.
    """
    variables = [it for cohort in found for of_head in cohort.values() for it in of_head]
    tests = [test for variable in variables for test in variable["tests"].values()]
    made = [test for test in tests if test["p"] is not None]
    for test, p in zip(made, holm([test["p"] for test in made]), strict=True):
        test["p_holm"] = p
    return len(made)
