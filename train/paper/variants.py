"""What the paper measures, and the networks that it trains for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_def.heads import HeadSpec
from sonode.console import UserError
from train.cohorts.cohort import Cohort
from train.cohorts.labels import implied
from train.cohorts.split import parts_of
from train.evidence.ablation import REFERENCE, VARIANTS
from train.fitting.datamodule import label_matrix
from train.paper.repeats import TaskRows
from train.radiomics.forest import HEADS
from train.statistics.binary import Bools

QUICK = ("--trainer.max_epochs=2", "--model.preprocessing.size=64")
"""Of a quick run: figures of such networks show that the program works, and nothing else."""
NETWORK = REFERENCE
RADIOMICS = "radiomics"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A head, and the rows that it is measured on."""

    head: HeadSpec
    title: str
    on: str


TASKS = {
    head.name: Task(head=head, title=title, on="all" if head.parent is None else "malignant")
    for head, title in zip(
        HEADS,
        ("Malignancy", "ALNM", *(f"{k} nodes or more" for k in (2, 3, 4))),
        strict=True,
    )
}
"""By head. ALNM and the burden are measured on malignant lesions, as in the paper."""
PAPERS_TWO = ("malignancy", "alnm")


def variants_of(quick: bool) -> dict[str, list[str]]:
    """The networks to train, by name: their flags over the configuration."""
    more = QUICK if quick else ()
    return {name: [*VARIANTS[name], *more] for name in (NETWORK,)}


class HeldOut:
    """The rows of the cohort's test part, and those that each task is measured on."""

    def __init__(self, cohort: Cohort, split_seed: int) -> None:
        """Split the cohort; UserError where no patient falls into the test part."""
        chosen_N = np.array(parts_of(cohort.table, split_seed)) == "test"
        if not chosen_N.any():
            raise UserError(
                f"COHORT {cohort.folder}, split seed {split_seed}: no patient falls into the test "
                "part; the cohort is too small"
            )
        self.rows = cohort.table[chosen_N].reset_index(drop=True)
        own_NK = label_matrix(cohort.table, HEADS)
        truth_NK = implied(own_NK, HEADS).numpy()[chosen_N]
        patient_N = self.rows["patient_id"].to_numpy(dtype=object)
        self.known: dict[str, Bools] = {}
        """Which rows (N,) a task is measured on: truth and set are known."""
        self.tested: dict[str, TaskRows] = {}
        """Their truth and patients."""
        for k, head in enumerate(HEADS):
            known_N = ~np.isnan(truth_NK[:, k])
            if head.parent is not None:
                known_N &= truth_NK[:, 0] == 1
            if own_NK[:, k].isnan().all():
                # Registers count the nodes of positive axillae alone: what follows from the others
                # would be read as the burden of all (as in `train.radiomics.forest.fit`).
                known_N[:] = False
            self.known[head.name] = known_N
            self.tested[head.name] = TaskRows(
                truth_N=truth_NK[known_N, k] == 1, patient_N=patient_N[known_N]
            )
