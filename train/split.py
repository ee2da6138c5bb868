"""The split by patient: a function of seed and patient id alone, so a cohort may grow."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Part = Literal["train", "val", "test"]

TEST_SHARE = 0.30  # the paper's: 30 % of patients, chosen once for all
VAL_SHARE = 0.15  # of all patients; the paper does not give its own


def part_of(patient_id: str, seed: int) -> Part:
    """The part that all images of the patient belong to, whoever else is in the cohort."""
    digest = hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
    position = int.from_bytes(digest[:8]) / 2**64  # uniform in [0, 1)
    if position < TEST_SHARE:
        return "test"
    return "val" if position < TEST_SHARE + VAL_SHARE else "train"


def usable_seed(patients: Sequence[str], labels_NK: torch.Tensor) -> int | None:
    """The first of 1000 seeds under which a small cohort can be worked with, or None.

    Usable: each part has, for each head, an image of every label that the cohort has at all. Only
    labels are looked at, never a result: the seed is chosen once, before anything is trained.
    """
    wanted = [set(column_N[~column_N.isnan()].tolist()) for column_N in labels_NK.T]
    for seed in range(1000):
        rows: dict[Part, list[int]] = defaultdict(list)
        for row, patient in enumerate(patients):
            rows[part_of(patient, seed)].append(row)
        if len(rows) == 3 and all(
            values <= set(labels_NK[chosen, k].tolist())
            for chosen in rows.values()
            for k, values in enumerate(wanted)
        ):
            return seed
    return None
