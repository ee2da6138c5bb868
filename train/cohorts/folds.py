"""Folds by patient: drawn by a seed and stratified, or a column of the cohort."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from sonode.console import UserError, counted
from train.cohorts.cohort import Cohort
from train.cohorts.similar.near_duplicates import Pair, groups
from train.cohorts.split import check_partition

Texts = npt.NDArray[np.object_]


def folds_of(cohort: Cohort, folds: int | str, seed: int) -> Texts:
    """The fold (N,) of each row: `1` to K of K drawn ones, or the text in the column `folds`.

    Drawn folds are stratified by the patients' malignancy and ALNM (scikit-learn's
    StratifiedGroupKFold) and keep patients with similar images together. They depend on the
    patients' ids and labels and on the seed, not on the order of rows; unlike the split, they
    change as the cohort grows.

    Raises UserError: no such column, a blank in it, one fold alone, a patient in two folds, or more
    folds than patients.
    """
    if isinstance(folds, str):
        return _of_column(cohort, folds)
    table = cohort.table
    patients_P, of_row_N = np.unique(table["patient_id"].astype(str), return_inverse=True)
    group_P = groups_of(cohort)[np.unique(of_row_N, return_index=True)[1]]
    if len(set(group_P)) < folds:
        raise UserError(
            f"data.folds {folds}: the cohort has {counted(len(set(group_P)), 'patient')}, those "
            "with similar images counted as one; give fewer folds (2 at least) or more patients"
        )
    drawn = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    stratum_P = _strata(table, of_row_N)
    fold_P = np.empty(len(patients_P), dtype=object)
    if folds > (largest := np.bincount(stratum_P).max()):
        raise UserError(
            f"data.folds {folds}: the largest group of patients with the same malignancy and ALNM "
            f"has {largest}; give fewer folds (2 at least) or more patients"
        )
    with warnings.catch_warnings():
        # A stratum of fewer patients than folds is in some folds alone, as it must be.
        warnings.filterwarnings("ignore", ".*least populated class.*")
        for number, (_, kept_aside) in enumerate(drawn.split(fold_P, stratum_P, group_P), start=1):
            fold_P[kept_aside] = str(number)
    return fold_P[of_row_N]


def fold_names(fold_N: Iterable[str]) -> list[str]:
    """Each fold once, in order: numbers by value."""
    return sorted(set(fold_N), key=lambda it: (not it.isdecimal(), it.zfill(12)))


def groups_of(cohort: Cohort) -> npt.NDArray[np.int_]:
    """A number (N,) for each row, equal for a patient's rows and for those of similar patients."""
    patients_P, of_row_N = np.unique(cohort.table["patient_id"].astype(str), return_inverse=True)
    pairs = [
        Pair(int(of_row_N[it.first[0]]), int(of_row_N[it.second[0]]), it.similarity)
        for it in cohort.similar
    ]
    return np.array(groups(len(patients_P), pairs))[of_row_N]


def _strata(table: pd.DataFrame, of_row_N: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """For each patient a number of its malignancy and ALNM, each the worst of its rows."""
    code_N2 = table[["malignant", "alnm"]].to_numpy(dtype=float, na_value=np.nan)
    code_N2[np.isnan(code_N2)] = -1  # by hand: Arrow's booleans take no other number
    worst_P2 = pd.DataFrame(code_N2).groupby(of_row_N).max().to_numpy()
    stratum_P: npt.NDArray[np.intp] = np.unique(worst_P2, axis=0, return_inverse=True)[1]
    return stratum_P


def _of_column(cohort: Cohort, name: str) -> Texts:
    table = cohort.table
    if name not in table:
        has = ", ".join(cohort.partitions) or "none"
        raise UserError(
            f"data.folds {name}: the cohort has no such column (columns of folds: {has}); give "
            "one of its columns, or a number from 2 on to draw so many"
        )
    if blank := int(table[name].isna().sum()):
        raise UserError(
            f"data.folds {name}: the column is blank in {counted(blank, 'row')}; fill it in"
        )
    fold_N = np.array([_text(value) for value in table[name]], dtype=object)
    if len(set(fold_N)) < 2:
        raise UserError(f"data.folds {name}: the column holds one value alone; folds need two")
    check_partition(table, name, f"data.folds {name}")
    return fold_N


def _text(value: object) -> str:
    """A fold's name; Parquet may hold the whole numbers 1 to K as 1.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
