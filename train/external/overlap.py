"""Whether external cohorts share patients or pictures: two that do are not two hospitals."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from sonode.console import UserError, counted, say
from train.cohorts.cohort import load_cohort
from train.cohorts.mixed import COHORT, absolute, in_two_cohorts


def equal_ids(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """How many patient ids each two of the cohorts share, where any; it is said, too.

    It may be by chance, so it is no fault.

    Raises UserError: a picture is in two of the cohorts, or one cannot be read.
    """
    cohorts = {name: load_cohort(folder) for name, folder in folders.items()}
    if len(cohorts) < 2:
        return []
    table = pd.concat(
        [
            its.table[["pixels_sha256"]].assign(
                image=[absolute(its, str(image)) for image in its.table["image"]],
                # So that equal ids of two cohorts are two patients.
                patient_id=[f"{name}:{patient}" for patient in its.table["patient_id"]],
                **{COHORT: name},
            )
            for name, its in cohorts.items()
        ],
        ignore_index=True,
    )
    thumbnails = {
        absolute(its, image): thumbnail
        for its in cohorts.values()
        for image, thumbnail in its.thumbnails.items()
    }
    _, rows = in_two_cohorts(table, thumbnails)
    if rows:
        counts = table.iloc[sorted(rows)][COHORT].value_counts(sort=False).items()
        of_each = [f"{counted(count, 'row')} of {name}" for name, count in counts]
        raise UserError(
            f"--cohort: pictures that an earlier cohort has, too: {', '.join(of_each)}; leave them "
            "out of one of the two"
        )
    ids = {name: set(its.table["patient_id"]) for name, its in cohorts.items()}
    found: list[dict[str, Any]] = [
        {"cohorts": [one, two], "patient_ids": len(ids[one] & ids[two])}
        for one, two in combinations(cohorts, 2)
        if ids[one] & ids[two]
    ]
    for its in found:
        say(
            f"{' and '.join(its['cohorts'])}: {counted(its['patient_ids'], 'patient id')} in both; "
            "where these are the same patients, the cohorts are no two external ones"
        )
    return found
