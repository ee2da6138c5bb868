"""Table 1: who is in the training and in the test part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from train.cohorts.cohort import Cohort
from train.cohorts.describe import NOTES, table_one
from train.cohorts.split import parts_of
from train.paper.sections import Section, Table

FILE = "tables/table-1-{}.csv"


def cohort_section(cohort: Cohort, split_seed: int, out: Path) -> Section:
    """The table of `sonode describe` for either part; training holds the validation part."""
    tested_N = np.array(parts_of(cohort.table, split_seed)) == "test"
    tables = []
    for name, chosen_N in (("training and validation", ~tested_N), ("test", tested_N)):
        found = table_one(replace(cohort, table=cohort.table[chosen_N].reset_index(drop=True)))
        file = FILE.format(name.split()[0])
        (out / file).parent.mkdir(exist_ok=True)
        found.to_csv(out / file, index=False)
        tables.append(
            Table(
                caption=f"{name.capitalize()} part. {' '.join(NOTES)}",
                columns=[str(it) for it in found.columns],
                rows=[[str(it) for it in row] for row in found.to_numpy().tolist()],
                file=file,
            )
        )
    return Section(title="Table 1: training and test part", tables=tables)
