from dataclasses import replace

import pandas as pd
import pytest

from sonode.console import UserError
from train.cohorts.cohort import Cohort
from train.cohorts.folds import folds_of
from train.cohorts.mixed import mixed, shares
from train.cohorts.split import parts_of


@pytest.fixture
def two(phantom: Cohort) -> tuple[Cohort, Cohort]:
    """The phantom's first seven patients, and the others, of whom age is not known."""
    table = phantom.table
    first = table["patient_id"].isin(table["patient_id"].unique()[:7])
    return (
        replace(phantom, name="a", table=table[first].reset_index(drop=True)),
        replace(phantom, name="b", table=table[~first].drop(columns="age").reset_index(drop=True)),
    )


def test_each_cohort_keeps_its_rows_and_what_it_does_not_have_is_missing(
    two: tuple[Cohort, Cohort], phantom: Cohort
) -> None:
    both = mixed(two)
    assert both.name == "a + b"
    sizes = [len(its.table) for its in two]
    assert both.table["cohort"].tolist() == ["a"] * sizes[0] + ["b"] * sizes[1]
    for column in ("patient_id", "malignant", "alnm", "subtype", "pixels_sha256"):
        assert both.table[column].tolist() == phantom.table[column].tolist()
    assert both.table["age"].isna().tolist() == [False] * sizes[0] + [True] * sizes[1]
    assert both.covariates == ["age"]
    assert all(both.image_path(row).is_file() for row in range(len(both.table)))
    assert set(both.thumbnails) == set(both.table["image"])
    # A patient's part is the one that it has in its cohort alone.
    assert parts_of(both.table, 4) == [part for its in two for part in parts_of(its.table, 4)]
    assert folds_of(both, "cohort", 0).tolist() == both.table["cohort"].tolist()
    assert list(shares(both, range(len(both.table)))) == [("a", 7, sizes[0]), ("b", 7, sizes[1])]
    assert list(shares(phantom, [0])) == []


def test_cohorts_that_do_not_go_together(two: tuple[Cohort, Cohort]) -> None:
    first, second = two
    table = second.table
    one = first.table.iloc[:1].drop(columns="age").assign(patient_id="new")
    again = pd.concat([table, one.astype(table.dtypes)], ignore_index=True)
    for other, message in (
        (replace(second, name="a"), "two cohorts are called a"),
        (replace(second, synthetic=False), "a synthetic cohort beside patients"),
        (replace(first, name="b"), "in two cohorts: 7 patient ids;"),
        (
            replace(second, table=again),
            "pictures of an earlier cohort under another patient in 1 row;",
        ),
        (replace(second, table=table.assign(subtype=1.0)), "column `subtype` holds"),
        (replace(second, table=table.assign(cohort="x")), "b has a column `cohort`"),
    ):
        with pytest.raises(UserError, match=message):
            mixed([first, other])
