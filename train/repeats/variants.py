"""What the paper measures, and the networks that it trains for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from model_def.heads import HeadSpec
from sonode.console import UserError, counted
from train.cohorts.cohort import Cohort
from train.cohorts.labels import child_labels, implied, label_matrix
from train.cohorts.split import PARTS, divided_by, empty_part, parts_of
from train.experiments.ablation import VARIANTS, flags_of
from train.experiments.ablation_table import REFERENCE
from train.radiomics.forest import HEADS
from train.repeats.measured import TaskRows
from train.statistics.binary import Bools

QUICK = ("--trainer.max_epochs=2", "--model.preprocessing.size=64")
"""Of a quick run: figures of such networks show that the program works, and nothing else."""
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


_BURDEN = [head for head in HEADS if head.name.startswith("nodes")]
CHAIN = "chain of the burden"
_HEADS_OF = {
    "single malignancy": HEADS[:1],
    "single alnm": HEADS[1:2],
    CHAIN: HEADS[:3],  # and those of more nodes where they have labels
    **{f"single {head.name}": (head,) for head in _BURDEN},
}
"""The heads that a variant learns; of all others the paper's two."""


def variants_of(cohort: Cohort, split_seed: int, quick: bool) -> dict[str, list[str]]:
    """The networks that the cohort can train, by name: their flags over the configuration.

    Of the burden: one chain, and a network for each number of nodes, as the paper's, on malignant
    lesions. ">= 1" is `single alnm`. Left out is what has a head without labels of both classes.

    Raises UserError: the cohort can train none.
    """
    known, alone = (_learnable(cohort, split_seed, alone=it) for it in (False, True))
    linked = list(itertools.takewhile(lambda head: head.name in known, HEADS))
    every = {
        **VARIANTS,
        CHAIN: flags_of(", ".join(map(_in_yaml, linked)), hierarchy="chain"),
        **{
            f"single {head.name}": flags_of(
                _in_yaml(head.model_copy(update={"parent": None})), malignant_only=True
            )
            for head in _BURDEN
        },
    }
    found = {
        name: [*flags, *(QUICK if quick else ())]
        for name, flags in every.items()
        if {head.name for head in _HEADS_OF.get(name, HEADS[:2])}
        <= (alone if name.startswith("single") else known)
    }
    if not found:
        # What a network with the other heads could learn may still lack lesions known as malignant.
        why = {**_why_not(cohort, split_seed, alone=True), **_why_not(cohort, split_seed)}
        raise UserError(
            f"COHORT {cohort.folder}: nothing can be trained on it (divided by "
            f"{divided_by(cohort.table, split_seed)}); give labels in its columns malignant, alnm "
            "and n_nodes, or another split",
            [f"{task.title}: {why[name]}" for name, task in TASKS.items() if name in why],
        )
    return found


def network_of(variants: Iterable[str]) -> str:
    """The network that stands for the paper's: with one task where the cohort has one."""
    known = list(variants)
    return REFERENCE if REFERENCE in known else known[0]


def _in_yaml(head: HeadSpec) -> str:
    parent = f", parent: {head.parent}" if head.parent else ""
    labels = ", ".join(head.labels)
    return f'{{name: {head.name}, target: "{head.target}", labels: [{labels}]{parent}}}'


def untrained(cohort: Cohort, split_seed: int) -> dict[tuple[str, str], str]:
    """Why the chain of the burden, or a network of its own, lacks a head: by variant and head."""
    linked, alone = (_why_not(cohort, split_seed, alone=it) for it in (False, True))
    found = {(f"single {name}", name): why for name, why in alone.items()}
    end: str | None = None
    for order, head in enumerate(HEADS):
        if end is None and head.name in linked:
            end = f"{TASKS[head.name].title}: {linked[head.name]}"
            shorter = order < len(_HEADS_OF[CHAIN])
            end = f"no such chain, since it is too short. {end}" if shorter else end
            if shorter:
                found |= {(CHAIN, it.name): end for it in HEADS[:order]}
        if end is not None:
            found[CHAIN, head.name] = end
    return found


def _learnable(cohort: Cohort, split_seed: int, *, alone: bool) -> set[str]:
    """The heads that can be trained, see `_why_not`."""
    lacking = _why_not(cohort, split_seed, alone=alone)
    return {head.name for head in HEADS if head.name not in lacking}


def _why_not(cohort: Cohort, split_seed: int, *, alone: bool = False) -> dict[str, str]:
    """The heads that training lacks a label of either class of, or validation any; and which.

    On the lesions that they learn from: those positive for the parent; `alone`, in a network of
    their own, all malignant ones.
    """
    own_NK = label_matrix(cohort.table, HEADS)
    truth_NK = implied(own_NK, HEADS)
    learned_NK = child_labels(truth_NK, HEADS, "independent", "mask").numpy()
    if alone:
        learned_NK = truth_NK.numpy().copy()
        learned_NK[learned_NK[:, 0] != 1, 1:] = np.nan
    parts = np.array(parts_of(cohort.table, split_seed))
    found = {}
    for k, head in enumerate(HEADS):
        trained, validated = (learned_NK[parts == part, k] for part in ("train", "val"))
        lacking = [label for place, label in enumerate(head.labels) if not (trained == place).any()]
        if own_NK[:, k].isnan().all():
            found[head.name] = f"the cohort has no label of {head.target.partition('>')[0]}"
        elif lacking:
            found[head.name] = f"no lesion to train on has the label {' or '.join(lacking)}"
        elif np.isnan(validated).all():
            found[head.name] = "no lesion of the validation part has the label"
    return found


class HeldOut:
    """The cohort's test part, and the rows that each task is measured on and learned from."""

    def __init__(self, cohort: Cohort, split_seed: int) -> None:
        """Split the cohort; UserError where no patient falls into the test part."""
        part_N = np.array(parts_of(cohort.table, split_seed))
        chosen_N = part_N == "test"
        if not chosen_N.any():
            why = empty_part(cohort.table, "test", split_seed)
            raise UserError(f"COHORT {cohort.folder}: {why}")
        self.rows = cohort.table[chosen_N].reset_index(drop=True)
        self.sizes: dict[str, str] = {}
        """Of each part of the split, in words."""
        for part in PARTS:
            ids = cohort.table["patient_id"][part_N == part]
            self.sizes[part] = (
                f"{counted(len(ids), 'image')} of {counted(ids.nunique(), 'patient')}"
            )
        own_NK = label_matrix(cohort.table, HEADS)
        truth_NK = implied(own_NK, HEADS).numpy()
        patient_N = cohort.table["patient_id"].to_numpy(dtype=object)
        self.known: dict[str, Bools] = {}
        """Which rows (N,) a task is measured on: truth and set are known."""
        self.tested: dict[str, TaskRows] = {}
        """Their truth and patients."""
        self.learned: dict[str, TaskRows] = {}
        """The same of the training part: what a network of that task alone learns from."""
        for k, head in enumerate(HEADS):
            known_N = ~np.isnan(truth_NK[:, k])
            if head.parent is not None:
                known_N &= truth_NK[:, 0] == 1
            if own_NK[:, k].isnan().all():
                # Registers count the nodes of positive axillae alone: what follows from the others
                # would be read as the burden of all (as in `train.radiomics.forest.fit`).
                known_N[:] = False
            self.known[head.name] = known_N[chosen_N]
            self.tested[head.name], self.learned[head.name] = (
                TaskRows(truth_N=truth_NK[rows, k] == 1, patient_N=patient_N[rows])
                for rows in (known_N & chosen_N, known_N & (part_N == "train"))
            )
