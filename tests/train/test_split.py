import math
from collections import Counter

import torch

from train.split import part_of, usable_seed


def test_shares_and_seeds() -> None:
    counts = Counter(part_of(f"patient-{number}", 0) for number in range(20_000))
    assert abs(counts["test"] / 20_000 - 0.30) < 0.01
    assert abs(counts["val"] / 20_000 - 0.15) < 0.01
    other = sum(part_of(f"p{n}", 0) != part_of(f"p{n}", 1) for n in range(1000))
    assert 400 < other < 700  # 1 - (0.3^2 + 0.15^2 + 0.55^2) = 0.585


def test_a_patient_stays_where_it_was() -> None:
    # Written down once: an update that moved patients would leak test images into training.
    assert [part_of(f"patient-{number}", 0) for number in range(8)] == [
        *("test", "test", "val", "test", "train", "val", "val", "train")
    ]


def test_a_seed_for_a_small_cohort() -> None:
    patients = [f"patient-{number}" for number in range(9)]
    labels = torch.tensor([[float(n % 2), 1.0 if n % 2 else math.nan] for n in range(9)])
    seed = usable_seed(patients, labels)
    assert seed is not None
    for tried in range(seed + 1):
        parts = {
            part: {n % 2 for n in range(9) if part_of(patients[n], tried) == part}
            for part in ("train", "val", "test")
        }
        assert all(found == {0, 1} for found in parts.values()) is (tried == seed)
    assert usable_seed(patients[:2], labels[:2]) is None
