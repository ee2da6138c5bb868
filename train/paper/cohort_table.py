"""Table 1: who is in the training and in the test part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from train.cohorts.cohort import Cohort
from train.cohorts.describe import NOTES, table_of_parts, table_one
from train.cohorts.split import parts_of
from train.paper.sections import Section, Table

FILE = "tables/table-1{}.csv"
TRAINING, TEST = "training and validation", "test"


def cohort_section(cohort: Cohort, split_seed: int, out: Path) -> Section:
    """Both parts beside each other, then each by malignancy and ALN as in `sonode describe`."""
    part_N = np.where(np.array(parts_of(cohort.table, split_seed)) == "test", TEST, TRAINING)
    parts = table_of_parts(cohort, part_N)[["characteristic", "value", TRAINING, TEST, "p"]]
    caption = f"Table 1. {' '.join(NOTES)} p: training and validation against test."
    tables = [_table(caption, parts, FILE.format(""), out)]
    for name in (TRAINING, TEST):
        chosen = cohort.table[part_N == name].reset_index(drop=True)
        file = FILE.format(f"-{name.split()[0]}")
        found = table_one(replace(cohort, table=chosen))
        tables.append(_table(f"{name.capitalize()} part by malignancy and ALN.", found, file, out))
    return Section(title="Table 1: patients and lesions", tables=tables)


def _table(caption: str, found: pd.DataFrame, file: str, out: Path) -> Table:
    (out / file).parent.mkdir(exist_ok=True)
    found.to_csv(out / file, index=False)
    return Table(
        caption=caption,
        columns=[str(it) for it in found.columns],
        rows=[[str(it) for it in row] for row in found.to_numpy().tolist()],
        file=file,
    )
