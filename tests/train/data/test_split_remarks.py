import re

import numpy as np

from tests.conftest import HEADS
from train.cohorts.cohort import Cohort
from train.cohorts.labels import child_labels, label_matrix
from train.cohorts.split import balance, part_of
from train.data.datamodule import CohortData
from train.data.split_remarks import split_remarks


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
