"""Several cohorts as one: each with its own labels, a column `cohort` says where a row is from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sonode.console import UserError, counted
from train.cohorts.checks import Scan
from train.cohorts.cohort import Cohort, load_cohort
from train.cohorts.similar.near_duplicates import SAME
from train.cohorts.similar.similar_images import Similar, find_similar

COHORT = "cohort"  # the column of a mixed cohort that names the one that a row is from


def load_cohorts(folders: Sequence[Path]) -> Cohort:
    """One cohort as it is, or several mixed. Raises UserError: as `load_cohort` and `mixed`."""
    cohorts = [load_cohort(folder) for folder in folders]
    return cohorts[0] if len(cohorts) == 1 else mixed(cohorts)


def mixed(cohorts: Sequence[Cohort]) -> Cohort:
    """All rows, in order; a column that a cohort lacks is missing in its rows, never negative.

    Patients keep their ids, so that each is in the same part of the split as in its cohort alone.

    Raises UserError: two of one name, phantoms beside patients, a patient's id or a picture in two
    cohorts, or a column of two types.
    """
    names = [cohort.name for cohort in cohorts]
    if equal := [name for name, times in Counter(names).items() if times > 1]:
        raise UserError(
            f"data.cohort: two cohorts are called {equal[0]}; import one again with another --name"
        )
    if len({cohort.synthetic for cohort in cohorts}) > 1:
        raise UserError(
            "data.cohort: a synthetic cohort beside patients, whose figures would be one; start "
            "from a network of the phantom with model.weights"
        )
    owners = pd.concat(
        [pd.Series(its.name, index=its.table["patient_id"].unique()) for its in cohorts]
    )
    if shared := int(owners.index.duplicated().sum()):
        raise UserError(
            f"data.cohort: in two cohorts: {counted(shared, 'patient id')}; if these are other "
            "patients, give the ids of one cohort a prefix and import it again"
        )
    kinds = _kinds(cohorts)
    table = pd.concat([_with_all(cohort, kinds) for cohort in cohorts], ignore_index=True)
    thumbnails = {
        absolute(cohort, image): thumbnail
        for cohort in cohorts
        for image, thumbnail in cohort.thumbnails.items()
    }
    similar, rows = in_two_cohorts(table, thumbnails)
    if rows:
        raise UserError(
            f"data.cohort: pictures of an earlier cohort under another patient in "
            f"{counted(len(rows), 'row')}; leave them out of one of the two"
        )
    return Cohort(
        name=" + ".join(names),
        synthetic=cohorts[0].synthetic,
        patient_ids=all(cohort.patient_ids for cohort in cohorts),
        folder=cohorts[0].folder,  # all images are absolute
        table=table,
        thumbnails=thumbnails,
        similar=similar,
        mixed=True,
    )


def in_two_cohorts(
    table: pd.DataFrame, thumbnails: Mapping[str, bytes]
) -> tuple[list[Similar], set[int]]:
    """Similar images of other patients, and the rows whose picture an earlier cohort has, too.

    `table` needs the columns image, pixels_sha256, patient_id and `COHORT`; `thumbnails` are by
    image.
    """
    sha256 = dict(zip(table["image"], table["pixels_sha256"], strict=True))
    similar = find_similar(table, {it: Scan(sha256[it], 0, 0, thumbnails[it]) for it in sha256})
    of_row = table[COHORT].to_numpy(dtype=object)
    same = {
        it.second[0]
        for it in similar
        if it.similarity >= SAME and of_row[it.first[0]] != of_row[it.second[0]]
    }
    first_row = table.groupby("pixels_sha256")[COHORT].transform("first")
    twice_N = (first_row != table[COHORT]).to_numpy(dtype=bool)  # one file in both, say
    return similar, same | set(np.flatnonzero(twice_N).tolist())


def shares(cohort: Cohort, rows: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Of a mixed cohort's rows: name, patients and images of each cohort in it; else nothing."""
    if not cohort.mixed:
        return
    chosen = cohort.table.iloc[np.asarray(rows, dtype=int)]
    for name, own in chosen.groupby(COHORT, sort=False):
        yield str(name), int(own["patient_id"].nunique()), len(own)


def _kinds(cohorts: Sequence[Cohort]) -> dict[str, Any]:
    """Type of each column of any of the cohorts, in order of appearance."""
    kinds: dict[str, Any] = {}
    for cohort in cohorts:
        for name, kind in cohort.table.dtypes.items():
            if name == COHORT:
                raise UserError(
                    f"data.cohort: {cohort.name} has a column `{COHORT}` of its own; rename it"
                )
            if kinds.setdefault(str(name), kind) != kind:
                raise UserError(
                    f"data.cohort: column `{name}` holds {kind} in {cohort.name} and "
                    f"{kinds[str(name)]} in another cohort; import one again with --column"
                )
    return kinds


def _with_all(cohort: Cohort, kinds: dict[str, Any]) -> pd.DataFrame:
    table, text = cohort.table, pd.ArrowDtype(pa.string())
    absent = {
        name: pd.Series([None] * len(table), table.index, dtype=kind)
        for name, kind in kinds.items()
        if name not in table
    }
    images = [absolute(cohort, str(image)) for image in table["image"]]
    found = table.assign(**absent, image=pd.Series(images, table.index, dtype=text))
    origin = pd.Series([cohort.name] * len(table), table.index, dtype=text)
    return found[list(kinds)].assign(**{COHORT: origin})


def absolute(cohort: Cohort, image: str) -> str:
    """The image's path, which no other cohort's has."""
    return str((cohort.folder / image).resolve())
