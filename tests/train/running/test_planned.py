from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from sonode.console import UserError
from tests.conftest import HEADS
from train.cohorts.cohort import Cohort
from train.data.datamodule import CohortData
from train.fitting.losses import LossSettings
from train.running.planned import check_classes


def settings(cohort: Cohort, folds: int) -> Any:
    data = CohortData(cohort.folder, folds=folds)
    data._cohort = cohort
    model = SimpleNamespace(heads=HEADS, hierarchy="independent", loss=LossSettings())
    return cast(Any, SimpleNamespace(datamodule=data, model=model))


def test_classes_that_folds_cannot_be_made_of(phantom: Cohort) -> None:
    table = phantom.table
    ids = list(table["patient_id"].unique())
    fold_N = np.array([str(ids.index(it) % 3 + 1) for it in table["patient_id"]], dtype=object)
    check_classes(settings(phantom, 3), fold_N)

    blank = replace(
        phantom, table=table.assign(alnm=pd.array([None] * len(table), dtype="bool[pyarrow]"))
    )
    check_classes(settings(blank, 3), fold_N)  # a head without labels is left out in training
    one = replace(phantom, table=table[table["malignant"]].reset_index(drop=True))
    with pytest.raises(UserError, match="head malignancy: the cohort has labels, but no 'benign'"):
        check_classes(settings(one, 3), fold_N[table["malignant"].to_numpy(dtype=bool)])

    benign = sorted(set(table["patient_id"][~table["malignant"]]))
    few = table["malignant"] | (table["patient_id"] == benign[0])
    fewer = replace(phantom, table=table[few].reset_index(drop=True))
    with pytest.raises(UserError, match="3 folds, and only 1 patient with 'benign' of malignancy"):
        check_classes(settings(fewer, 3), fold_N[few.to_numpy(dtype=bool)])

    apart = np.where(table["malignant"], fold_N, "4").astype(object)
    with pytest.raises(UserError, match="all 'benign' of malignancy lie in fold 4"):
        check_classes(settings(phantom, 4), apart)
