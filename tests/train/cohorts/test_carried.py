from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from train.cohorts.carried import carried_columns
from train.cohorts.cohort import Cohort

PATIENTS = ["a", "a", "b", "c", "d"]


def cohort(**columns: list[object]) -> Cohort:
    table = pd.DataFrame({"patient_id": pd.Series(PATIENTS, dtype="string[pyarrow]")})
    for name, values in columns.items():
        numbers = isinstance(values[0], int | float)
        kind = pd.ArrowDtype(pa.float64() if numbers else pa.string())
        table[name] = pd.Series(values, dtype=kind)
    return Cohort(name="c", synthetic=True, folder=Path(), table=table)


def test_columns_that_name_patients_stay_behind(capsys: pytest.CaptureFixture[str]) -> None:
    found = carried_columns(
        cohort(
            age=[41, 41, 52, 63, 70],  # each patient's own, and no record number
            size_mm=[1200.5, 1200.5, 1300.25, 8.5, 9.5],  # no whole numbers
            record=[100234, 100234, 100235, 100236, 100237],
            # Three of three have a name of their own, and two of four a BI-RADS.
            surname=["Ash", "Ash", "Birch", "Oak", None],
            birads=["2", "2", "3", "4", "4"],
            other_truth=["x", "x", "y", "y", "y"],
        )
    )
    assert found == ["age", "size_mm", "birads"]
    told = " ".join(capsys.readouterr().out.split())
    assert "column record, surname: left out of the predictions" in told
    assert "column other_truth: left out" in told
    assert "Ash" not in told and "100234" not in told


def test_one_patients_value_alone_names_it() -> None:
    assert carried_columns(cohort(histology=[None, None, None, None, "cyst"])) == []
    assert carried_columns(cohort(birads=["4", "4", "4", None, None])) == ["birads"]
