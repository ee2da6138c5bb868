"""The checkpoint of a finished training, for `sonode train validate` and `test`."""

from __future__ import annotations

from pathlib import Path

from model_def import checkpoint
from sonode.console import UserError
from train.cohorts.split import Part
from train.data.datamodule import CohortData
from train.data.leakage import check_unseen
from train.fitting.task import MultiTask

CHECKPOINT = "checkpoint"  # what is packed, inside OUT


def load_exported(out: Path, model: MultiTask, data: CohortData, part: Part) -> None:
    """Give `model` the network and the facts of the checkpoint in `out`.

    Raises UserError: there is none, it was trained on another split, or it saw images of the part.
    """
    folder = out / CHECKPOINT
    try:
        network, card = checkpoint.load(folder)
    except checkpoint.CheckpointError as error:
        raise UserError(f"--out: {error}") from error
    for name, given in (
        ("split_seed", data.split_seed),
        ("folds", data.folds),
        ("fold", data.fold),
    ):
        trained_with = card.training["cohort"].get(name)
        if given != trained_with:
            raise UserError(
                f"--data.{name} {given}: the checkpoint was trained with {trained_with}; "
                "another split would test it on patients that it was trained on"
            )
    rows = data.rows_of(part)
    if not rows:
        raise UserError(
            f"--out {out}: no patient was held out as {part} part; figures are "
            "those of `sonode train folds`, or of `sonode evaluate` on another cohort"
        )
    check_unseen(folder, data, part, rows)
    model.network, model.heads = network, card.heads
    model.hierarchy, model.preprocessing = card.hierarchy, card.preprocessing
