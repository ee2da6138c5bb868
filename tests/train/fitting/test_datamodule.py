import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from model_def.heads import HeadSpec
from model_def.preprocessing import Preprocessing
from sonode.console import UserError
from tests.conftest import HEADS
from train.cohorts.cohort import Cohort
from train.cohorts.folds import folds_of
from train.cohorts.labels import child_labels, label_matrix
from train.cohorts.split import PARTS, balance, part_of
from train.fitting.augment import Augmentation, augmentation
from train.fitting.datamodule import CohortData, Crops, EpochSampler, split_remarks


def crops(n: int, *, augmented: bool = True) -> Crops:
    facts = Preprocessing(size=32)
    pixels = [np.full((20, 30), 10 * index, np.uint8) for index in range(n)]
    labels = torch.arange(n, dtype=torch.float32)[:, None]
    return Crops(pixels, labels, facts, augmentation(Augmentation(), 32) if augmented else None)


def drawn(n: int, epoch: int, replicas: int = 1, rank: int = 0) -> list[tuple[int, int]]:
    sampler = EpochSampler(crops(n), 3, replicas=replicas, rank=rank)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_is_drawn_from_seed_and_number_alone() -> None:
    assert drawn(10, 2) == drawn(10, 2)
    assert drawn(10, 2) != drawn(10, 3)
    assert sorted(index for index, _ in drawn(10, 2)) == list(range(10))


def test_processes_share_an_epoch_without_overlap() -> None:
    shares = [drawn(10, 2, replicas=2, rank=rank) for rank in (0, 1)]
    assert [len(share) for share in shares] == [5, 5]
    assert sorted(shares[0] + shares[1]) == sorted(drawn(10, 2))


def test_the_same_draw_gives_the_same_picture() -> None:
    data = crops(3)
    first, again, other = data[1, 7], data[1, 7], data[1, 8]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    plain = crops(3, augmented=False)[1]
    assert (plain[0] == 10).all()
    assert plain[1].item() == 1


def remarks(cohort: Cohort, seed: int) -> list[str]:
    data = CohortData(cohort.folder, split_seed=seed)
    data._cohort = cohort
    return list(split_remarks(data, HEADS))


def test_a_part_of_one_class_is_reported_with_the_seed_that_helps(phantom: Cohort) -> None:
    *lines, remedy = remarks(phantom, 0)
    table = phantom.table
    parts = np.array([part_of(patient, 0) for patient in table["patient_id"]])
    expected = [
        f"the {part} part of the split has no {label!r} of {name}"
        for part in ("train", "val", "test")
        for name, head, rows in (
            ("malignancy", HEADS[0], parts == part),
            # Benign lesions without nodes do not make up for malignant ones without.
            ("alnm where malignancy holds", HEADS[1], (parts == part) & table["malignant"]),
        )
        for label, value in zip(head.labels, (False, True), strict=True)
        if value not in table[head.target][rows].tolist()
    ]
    assert any("alnm" in line for line in expected)
    assert lines == expected
    found = re.fullmatch(r"with data\.split_seed (\d+) every part has every label .*", remedy)
    assert found is not None
    best = int(found[1])
    assert remarks(phantom, best) == []

    # A split that can be worked with, but is more uneven than need be.
    labels_NK = child_labels(label_matrix(table, HEADS), HEADS, "independent", "mask")
    off = {it.seed: it.off for it in balance(list(table["patient_id"]), labels_NK, range(200))}
    uneven = max(off, key=off.__getitem__)
    (line,) = remarks(phantom, uneven)
    assert line.startswith(f"the parts differ from the cohort by up to {off[uneven]:.3f} ")
    assert f"with data.split_seed {best} by " in line


def test_patients_of_a_part_are_those_whose_lesions_it_holds(
    phantom: Cohort, heads: tuple[HeadSpec, ...]
) -> None:
    data = CohortData(phantom.folder, split_seed=4, malignant_only=True)
    data.setup_for(heads, Preprocessing(size=32))
    table = phantom.table
    train = table[[part_of(patient, 4) == "train" for patient in table["patient_id"]]]
    malignant = train[train["malignant"]]["patient_id"].nunique()
    assert data.patients("train") == malignant < train["patient_id"].nunique()


def test_a_fold_is_kept_aside_or_none_is(phantom: Cohort, heads: tuple[HeadSpec, ...]) -> None:
    data = CohortData(phantom.folder, folds=2, fold="2")
    data._cohort = phantom
    fold_N = folds_of(phantom, 2, 0)
    assert data.rows_of("val") == [row for row, it in enumerate(fold_N) if it == "2"]
    assert data.rows_of("train") == [row for row, it in enumerate(fold_N) if it == "1"]
    data.setup_for(heads, Preprocessing(size=32))
    assert [len(data.parts[part]) for part in PARTS] == [*map(len, map(data.rows_of, PARTS))]
    assert data.rows_of("test") == []

    everybody = CohortData(phantom.folder, folds=2, fold="all")
    everybody._cohort = phantom
    assert everybody.rows_of("train") == list(range(len(phantom.table)))
    for folds, fold, message in (
        (2, "3", r"data.fold 3: give the fold to keep aside \(1, 2\)"),
        (2, None, r"data.fold None: .* `sonode train folds`"),
        (None, "1", "data.fold 1: give data.folds, too"),
    ):
        data = CohortData(phantom.folder, folds=folds, fold=fold)
        data._cohort = phantom
        with pytest.raises(UserError, match=message):
            data.rows_of("val")


def test_a_cohort_that_brings_its_split_is_split_by_it(
    phantom: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = phantom.table["patient_id"]
    brought = np.where(ids == ids.iloc[0], "test", np.where(ids == ids.iloc[-1], "val", "train"))
    data = CohortData(phantom.folder, split_seed=4)
    data._cohort = replace(phantom, table=phantom.table.assign(split=brought))
    assert data.part_of_row == brought.tolist()
    assert "its column `split` is the split" in capsys.readouterr().out
    # What the seed of a drawn split would do says nothing of this one.
    assert not any("split_seed" in line for line in split_remarks(data, HEADS))


def test_a_target_that_a_cohort_to_evaluate_on_lacks_is_missing(
    phantom: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = [
        HeadSpec(name="grade", target="grade", labels=("1", "2", "3")),
        HeadSpec(name="many", target="mitoses>=2", labels=("few", "many")),
        HeadSpec(name="her2", target="her2", labels=("negative", "positive")),
    ]
    data = CohortData(phantom.folder)
    data.setup_for(heads, Preprocessing(size=32), may_lack=True)
    assert torch.isnan(data.parts["train"].labels_NK).all()
    assert data.parts["train"].labels_NK.shape[1] == 3
    told = capsys.readouterr().out
    assert "has no column `mitoses`; head many is not measured" in told
    with pytest.raises(UserError, match="target `grade` of `grade` is not a label of this cohort"):
        CohortData(phantom.folder).setup_for(heads, Preprocessing(size=32))
