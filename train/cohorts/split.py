"""The split by patient: a function of seed and patient id alone, so a cohort may grow.

A cohort that brings its own split has it in its column `split`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sonode.console import UserError, counted

if TYPE_CHECKING:
    import torch

Part = Literal["train", "val", "test"]

TEST_SHARE = 0.30  # the paper's: 30 % of patients, chosen once for all
VAL_SHARE = 0.15  # of all patients; the paper does not give its own
SHARES: dict[Part, float] = {
    "train": 1 - TEST_SHARE - VAL_SHARE,
    "val": VAL_SHARE,
    "test": TEST_SHARE,
}
PARTS = tuple(SHARES)
SPLIT = "split"  # the column of a cohort that brings its own
_PARTITION = re.compile(r"split|fold(_\d+)?")  # `fold_change` is a number of its own
UNEVEN = 0.03
"""A split whose parts are off by more gets a warning."""


def part_of(patient_id: str, seed: int) -> Part:
    """The part that all images of the patient belong to, whoever else is in the cohort."""
    digest = hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
    position = int.from_bytes(digest[:8]) / 2**64  # uniform in [0, 1)
    if position < TEST_SHARE:
        return "test"
    return "val" if position < TEST_SHARE + VAL_SHARE else "train"


def parts_of(table: pd.DataFrame, seed: int) -> list[Part]:
    """The part of each row of a cohort's table: of its column `split`, else by `part_of`.

    Raises UserError: the column holds blanks or other values than `PARTS`, or a patient is in two.
    """
    if SPLIT not in table:
        return [part_of(str(patient), seed) for patient in table["patient_id"]]
    check_partition(table, SPLIT, f"COHORT: column `{SPLIT}`")
    return list(table[SPLIT])


def divided_by(table: pd.DataFrame, seed: int) -> str:
    """What decides the part of each row, in words: see `parts_of`."""
    return f"column `{SPLIT}`" if SPLIT in table else f"data.split_seed {seed}"


def empty_part(
    table: pd.DataFrame, part: Part, seed: int, remedy: str = "the cohort is too small"
) -> str:
    """What is said of a part that no patient is in; `remedy` where the seed drew it."""
    if SPLIT in table:
        return f"no patient is in {part} by its column `{SPLIT}`; give some patients that part"
    return f"no patient falls into the {part} part of the split (data.split_seed {seed}); {remedy}"


def partitions(columns: Iterable[str]) -> list[str]:
    """The columns that say which part or fold a row belongs to: `split`, `fold`, `fold_5`.

    Known by these names alone, as `split` must be: an import checks them and keeps them out of the
    covariates. Any other column of folds can be trained by, too, and is checked then.
    """
    return [name for name in columns if _PARTITION.fullmatch(name)]


def check_partition(
    table: pd.DataFrame, column: str, field: str, place: Callable[[int], str] = "row {}".format
) -> None:
    """Refuse a column of parts or folds that cuts a patient in two; `place` names a row.

    Blanks count as no value, but in `split`, of which each row needs one.

    Raises UserError: a patient's rows have more than one value, or `split` others than `PARTS`.
    """
    if column == SPLIT and (wrong := int((~table[SPLIT].isin(PARTS)).sum())):
        raise UserError(
            f"{field}: is none of {', '.join(PARTS)} in {wrong} of {len(table)} rows; correct it "
            "and import again, or leave the column out to split by data.split_seed"
        )
    first: dict[str, tuple[int, Any]] = {}
    cut: dict[str, str] = {}
    for row, (patient, value) in enumerate(zip(table["patient_id"], table[column], strict=True)):
        if pd.isna(value) or not str(patient).strip():  # a missing id is a fault of its own
            continue
        other, known = first.setdefault(str(patient), (row, value))
        if value != known:
            cut.setdefault(str(patient), f"{place(other)} and {place(row)}")
    if cut:
        raise UserError(
            f"{field}: holds more than one value of {counted(len(cut), 'patient')} "
            f"({next(iter(cut.values()))}), so they would be trained on and evaluated; "
            "give all rows of a patient one value"
        )


class Balance(NamedTuple):
    """A seed, and how far its parts are off."""

    seed: int
    off: float
    """The largest difference between a part and the cohort: of a label's share, or of the part's
    own share and what it should be."""


def balance(
    patients: Sequence[str], labels_NK: torch.Tensor, seeds: Iterable[int]
) -> Iterator[Balance]:
    """Yield the seeds that a cohort can be worked with.

    That is: each part has, for each head, an image of every label that the cohort has at all.
    Shares are of images (rows), NaN is no label.
    """
    names, of_row_N = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    label_NK = labels_NK.numpy()
    known_NK = ~np.isnan(label_NK)
    columns = [(k, value) for k in range(label_NK.shape[1]) for value in np.unique(label_NK[:, k])]
    columns = [(k, value) for k, value in columns if not np.isnan(value)]
    is_NV = np.column_stack(
        [np.empty((len(label_NK), 0)), *(label_NK[:, k] == value for k, value in columns)]
    )
    known_NV = known_NK[:, [k for k, _ in columns]]
    should_P = np.array([SHARES[part] for part in PARTS])
    for seed in seeds:
        place = np.array([PARTS.index(part_of(str(name), seed)) for name in names])
        in_PN = (place[of_row_N] == np.arange(len(PARTS))[:, None]).astype(float)
        count_PV = in_PN @ is_NV
        if not in_PN.any(axis=1).all() or not count_PV.all():
            continue
        share_PV = count_PV / (in_PN @ known_NV)
        off_PV = np.abs(share_PV - is_NV.sum(axis=0) / known_NV.sum(axis=0))
        off_P = np.abs(in_PN.mean(axis=1) - should_P)
        yield Balance(seed, float(max(off_PV.max(initial=0), off_P.max())))


def closest_seed(patients: Sequence[str], labels_NK: torch.Tensor) -> Balance | None:
    """Of the first 1000 seeds (fewer in a large cohort) the one whose parts are most alike.

    A patient's part cannot hang on who else is in the cohort, or a cohort that grows would move
    patients; so no rule can fill parts evenly, within strata neither, and the test part of 340
    patients with a prevalence of .14 has by chance one of .09 to .20 (95 % of 1000 seeds). But
    which seed is used is free, until it is first used. Only labels are looked at, never a result:
    the seed is chosen once, before anything is trained (rerandomisation: Morgan & Rubin 2012,
    https://doi.org/10.1214/12-AOS1008). None: with no seed has every part every label.
    """
    seeds = min(1000, max(50, 2_000_000 // max(1, len(set(patients)))))
    return min(balance(patients, labels_NK, range(seeds)), key=lambda it: it.off, default=None)
