"""What a user should know of a split before training: classes it lacks, similar images it parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from model_def.heads import HeadSpec
from sonode.console import counted
from train.cohorts.labels import child_labels, label_matrix
from train.cohorts.split import PARTS, SPLIT, UNEVEN, balance, closest_seed
from train.data.datamodule import ALL, CohortData


def split_remarks(data: CohortData, heads: Sequence[HeadSpec]) -> Iterator[str]:
    """Similar images that it tears apart; what chance did to it, and the seed that helps.

    In a small cohort it may leave a part with one class, where an AUC is undefined, or with other
    shares of the labels than the cohort has. A head with a parent learns from the parent's
    positives and is measured there, so only their labels count.
    """
    if data.fold == ALL:
        return
    cohort, split_seed = data.cohort, data.split_seed
    labels_NK = child_labels(label_matrix(cohort.table, heads), heads, "independent", "mask")
    patients = list(cohort.table["patient_id"])
    parts = np.array(data.part_of_row)
    torn = [it for it in cohort.similar if parts[it.first[0]] != parts[it.second[0]]]
    if torn:
        shown = ", ".join(
            f"{it.first[0]} and {it.second[0]} ({it.similarity:.3f})" for it in torn[:10]
        )
        yield (
            f"similar images of different patients in two parts: {counted(len(torn), 'pair')}; if "
            f"they show the same lesions, give them one patient_id; the most similar: rows {shown}"
        )
    found = [
        f"the {part} part of the split has no {label!r} of {head.name}"
        + (f" where {head.parent} holds" if head.parent else "")
        for part in (PARTS if data.folds is None else ("train", "val"))
        for head, label_N in zip(heads, labels_NK.T, strict=True)
        for place, label in enumerate(head.labels)
        if (label_N == place).any() and not (label_N[parts == part] == place).any()
    ]
    if data.folds is not None or SPLIT in cohort.table:
        yield from found
        return
    own = next(balance(patients, labels_NK, [split_seed]), None)
    if not found and own is not None and own.off <= UNEVEN:
        return
    yield from found
    best = closest_seed(patients, labels_NK)
    if best is None:
        yield "no split_seed gives every part every label: the cohort is too small"
    elif found:
        yield f"with data.split_seed {best.seed} every part has every label that the cohort has"
    elif own is not None and best.off < own.off:
        yield (
            f"the parts differ from the cohort by up to {own.off:.3f} (share of a label, or size), "
            f"by chance; with data.split_seed {best.seed} by {best.off:.3f}. Choose a seed before "
            "the first training and keep it: then no patient changes part as the cohort grows"
        )
