"""The split by patient: a function of seed and patient id alone, so a cohort may grow."""

from __future__ import annotations

import hashlib
from typing import Literal

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
