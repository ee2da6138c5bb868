"""The figures of the development cohort: by patients that the network did not learn from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from model_def.checkpoint import CheckpointError, ModelCard, read_card
from model_def.heads import HeadSpec
from sonode.console import UserError
from sonode.files.metrics import METRICS, read_metrics
from train.cohorts.cohort import load_cohort
from train.data.datamodule import ALL
from train.fitting.predictions import Predictions, predict

EVIDENCE = "evidence"  # beside the checkpoint: both are in OUT of `sonode train folds --refit`


def development(checkpoint: Path, cohort: Path) -> Predictions:
    """The test part; of a fold's network the fold; of one on all patients those of its folds.

    Raises UserError: another cohort than the training's, predictions of the folds that are absent,
    damaged or of another training, and as `predict`.
    """
    try:
        card = read_card(checkpoint)
    except CheckpointError as error:
        raise UserError(f"CHECKPOINT {error}") from error
    fold = card.training["cohort"].get("fold")
    if fold == ALL:
        return _of_folds(checkpoint.resolve().parent / EVIDENCE, card, cohort)
    return predict(checkpoint, cohort, "test" if fold is None else "val")


def _of_folds(folder: Path, card: ModelCard, cohort: Path) -> Predictions:
    if load_cohort(cohort).sha256 != card.training["cohort"]["sha256"]:
        raise UserError(
            f"COHORT {cohort}: is not the one that the checkpoint was trained on; give that one: "
            "the figures of a network on all patients are those of its folds"
        )
    about = read_metrics(folder / METRICS, "sonode train folds --refit")["about"]
    model = card.model_dump(mode="json", exclude={"training"})
    trained_on = (about["cohort"]["sha256"], about["training"].get("temperatures"))
    own = (card.training["cohort"]["sha256"], card.training.get("temperatures"))
    if about["part"] != "out-of-fold" or about["model"] != model or trained_on != own:
        raise UserError(
            f"{folder}: is not of the folds that this checkpoint follows; leave `checkpoint` and "
            f"`{EVIDENCE}` beside each other, as `sonode train folds --refit` wrote them"
        )
    path = folder / "predictions.parquet"
    try:
        frame = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: missing, or damaged; run `sonode train folds` again") from error
    heads = tuple(HeadSpec.model_validate(its) for its in about["model"]["heads"])
    return Predictions(frame=frame, heads=heads, hierarchy=card.hierarchy, about=about)
