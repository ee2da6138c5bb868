from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sonode.console import UserError
from train.cohorts.cohort import Cohort
from train.cohorts.folds import folds_of
from train.cohorts.similar.similar_images import Similar


@pytest.fixture
def cohort() -> Cohort:
    """60 patients of two images: 12 malignant (6 with ALNM, of 3 it is not known), 48 benign."""
    patient = np.arange(60)
    malignant = patient % 5 == 0
    alnm = np.where(malignant, patient % 2 == 0, None)
    alnm[[0, 10, 25]] = None
    table = pd.DataFrame(
        {
            "patient_id": [f"p{it}" for it in patient],
            "malignant": pd.array(malignant, dtype="bool[pyarrow]"),
            "alnm": pd.array(alnm, dtype="bool[pyarrow]"),
        }
    )
    table = pd.concat([table, table], ignore_index=True)
    return Cohort(name="c", synthetic=True, folder=Path(), table=table)


def test_drawn_folds_are_by_patient_stratified_and_of_a_seed(cohort: Cohort) -> None:
    fold_N = folds_of(cohort, 3, 0)
    assert set(fold_N) == {"1", "2", "3"}
    assert fold_N[:60].tolist() == fold_N[60:].tolist()  # both images of a patient
    malignant_N = cohort.table["malignant"].to_numpy(dtype=bool)[:60]
    assert Counter(fold_N[:60][~malignant_N]) == {"1": 16, "2": 16, "3": 16}
    positive_N = cohort.table["alnm"].fillna(False).to_numpy(dtype=bool)[:60]
    assert set(Counter(fold_N[:60][positive_N])) == {"1", "2", "3"}
    blank = pd.array([None] * 120, dtype="bool[pyarrow]")
    alone = replace(cohort, table=cohort.table.assign(alnm=blank))
    assert Counter(folds_of(alone, 3, 0)[:60][malignant_N]) == {"1": 4, "2": 4, "3": 4}

    order = np.random.default_rng(0).permutation(120)
    shuffled = replace(cohort, table=cohort.table.iloc[order].reset_index(drop=True))
    assert folds_of(shuffled, 3, 0).tolist() == fold_N[order].tolist()
    assert folds_of(cohort, 3, 1).tolist() != fold_N.tolist()


def test_patients_with_similar_images_share_a_fold(cohort: Cohort) -> None:
    plain = folds_of(cohort, 3, 0)
    first = {fold: int(np.flatnonzero(plain == fold)[0]) for fold in ("1", "2", "3")}
    a, b, c = first.values()
    pairs = [Similar((a,), (b,), 0.97, False), Similar((b,), (c,), 0.96, False)]
    joined = folds_of(replace(cohort, similar=pairs), 3, 0)
    assert joined[a] == joined[b] == joined[c]


def test_folds_of_a_column(cohort: Cohort) -> None:
    centre = [f"centre {number % 4}" for number in range(60)] * 2
    table = cohort.table.assign(centre=centre, fold=[float(n % 4 + 1) for n in range(60)] * 2)
    given = replace(cohort, table=table)
    assert folds_of(given, "centre", 0).tolist() == centre
    assert set(folds_of(given, "fold", 0)) == {"1", "2", "3", "4"}  # Parquet's 1.0


def test_folds_that_cannot_be_used(cohort: Cohort) -> None:
    table = cohort.table
    cut = table.assign(fold=["1", "2"] * 30 + ["2"] * 60)
    blank = table.assign(fold=["1", "2"] * 59 + [None, None])
    one = table.assign(fold="1")
    for its, folds, message in (
        (cut, "fold", "data.folds fold: holds more than one value of 30 patients"),
        (blank, "fold", "the column is blank in 2 rows"),
        (one, "fold", "holds one value alone"),
        (one, "fold_5", r"no such column \(columns of folds: fold\)"),
        (table, 49, "the largest group .* has 48; give fewer folds .* or more patients"),
        (table, 61, "data.folds 61: the cohort has 60 patients"),
    ):
        with pytest.raises(UserError, match=message):
            folds_of(replace(cohort, table=its), folds, 0)
