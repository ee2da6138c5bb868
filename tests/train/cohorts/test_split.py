import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from sonode.console import UserError
from train.cohorts.split import balance, closest_seed, empty_part, part_of, parts_of


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


def test_a_split_that_the_cohort_brings() -> None:
    table = pd.DataFrame({"patient_id": ["a", "a", "b", "c"]})
    assert parts_of(table, 0) == [part_of(it, 0) for it in ("a", "a", "b", "c")]
    assert "data.split_seed 0); the cohort is too small" in empty_part(table, "test", 0)
    table["split"] = ["test", "test", "val", "train"]
    assert parts_of(table, 0) == ["test", "test", "val", "train"]
    assert empty_part(table, "test", 0).startswith("no patient is in test by its column `split`")
    for values, message in (
        (["test", None, "val", "validation"], "is none of train, val, test in 2 of 4 rows"),
        (
            ["test", "train", "val", "val"],
            r"holds more than one value of 1 patient \(row 0 and row 1\)",
        ),
    ):
        with pytest.raises(UserError, match=message):
            parts_of(table.assign(split=values), 0)


def off_by_hand(patients: list[str], labels: torch.Tensor, seed: int) -> float | None:
    """As `Balance.off`, one count at a time; None where a part lacks a label."""
    rows = list(zip([part_of(it, seed) for it in patients], labels.tolist(), strict=True))
    worst = 0.0
    for part, should in (("train", 0.55), ("val", 0.15), ("test", 0.30)):
        mine = [label for its, label in rows if its == part]
        worst = max(worst, abs(len(mine) / len(rows) - should))
        for k in range(labels.shape[1]):
            everyone = [label[k] for _, label in rows if not math.isnan(label[k])]
            its = [label[k] for label in mine if not math.isnan(label[k])]
            for value in set(everyone):
                if value not in its:
                    return None
                share = its.count(value) / len(its)
                worst = max(worst, abs(share - everyone.count(value) / len(everyone)))
    return worst


def test_the_seed_whose_parts_are_most_alike() -> None:
    patients = [f"patient-{number // 2}" for number in range(120)]  # two images each
    labels = torch.tensor(
        [[float(n % 3 == 0), math.nan if n % 5 else float(n % 10 > 4)] for n in range(120)]
    )
    found = {it.seed: it.off for it in balance(patients, labels, range(60))}
    expected = {seed: off_by_hand(patients, labels, seed) for seed in range(60)}
    assert None in expected.values()
    assert found == pytest.approx({s: off for s, off in expected.items() if off is not None})
    best = closest_seed(patients, labels)
    assert best is not None
    assert best.off <= min(found.values())
    assert best.off == pytest.approx(off_by_hand(patients, labels, best.seed))


def test_a_cohort_that_is_too_small_has_no_seed() -> None:
    labels = torch.tensor([[0.0, math.nan], [1.0, 1.0]])
    assert closest_seed(["a", "b"], labels) is None
    # Without any label only the sizes of the parts count.
    patients = [f"patient-{number}" for number in range(20)]
    unlabelled = closest_seed(patients, torch.full((20, 1), math.nan))
    assert unlabelled is not None
    assert unlabelled.off == pytest.approx(0)


def test_a_seed_keeps_its_patients_as_the_cohort_grows_and_stays_closer() -> None:
    rng = np.random.default_rng(0)
    labels = torch.tensor(rng.random((680, 1)) < 0.14, dtype=torch.float32)
    patients = [f"p{number}" for number in range(680)]
    best = closest_seed(patients[:340], labels[:340])
    assert best is not None
    assert best.off < 0.01
    (grown,) = balance(patients, labels, [best.seed])
    chance = [it.off for it in balance(patients, labels, range(100))]
    assert grown.off < np.median(chance)
