"""What a network is calibrated by: its validation part, or the predictions of all folds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from model_def.heads import HeadSpec
from model_def.outliers import OutlierLimit
from sonode.console import UserError
from train.data.datamodule import CohortData
from train.fitting.calibration.calibrate import calibrate, score_histograms
from train.fitting.losses import spoken_of
from train.fitting.task import MultiTask

HELD_OUT = "held_out.npz"  # beside a fold's weights; not packed into an archive


class Pooled(BaseModel):
    """Heads with their facts, the limit of the out-of-distribution flag, and how they came by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heads: tuple[HeadSpec, ...]
    temperatures: dict[str, Any]
    """How each head came by its temperature, see `calibrate.Calibrated`."""
    score_reference: dict[str, list[int]]
    out_of_distribution: OutlierLimit
    figures: dict[str, Any] | None = None
    """Of folds: what they measured, for the card of the network on every patient."""


def calibrated(
    model: MultiTask,
    data: CohortData,
    logits_NL: torch.Tensor,
    labels_NK: torch.Tensor,
    rows: Sequence[int],
    limit: OutlierLimit,
) -> Pooled:
    """Calibrate on logits and labels of those rows of the cohort, which did not train them.

    `limit`: found on the same rows.
    """
    heads, account = calibrate(
        logits_NL,
        labels_NK,
        spoken_of(
            model.heads,
            model.hierarchy,
            model.loss.parent_negative,
            malignant_only=data.malignant_only,
        ),
        model.hierarchy,
        model.loss.parent_negative,
        model.operating_point,
        data.cohort.table["patient_id"].iloc[list(rows)].tolist(),
        model.label_set_level,
    )
    reference = score_histograms(logits_NL, heads, model.hierarchy)
    return Pooled(
        heads=heads,
        temperatures=account,
        score_reference=reference,
        out_of_distribution=limit,
    )


def read_pooled(path: Path, heads: Sequence[str]) -> Pooled:
    """The file that `sonode train folds` wrote, which must be of these heads.

    Raises UserError: it is absent, damaged, or of others.
    """
    try:
        found = Pooled.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"--pooled {path}: cannot be read; run `sonode train folds`") from error
    if (own := [head.name for head in found.heads]) != list(heads):
        raise UserError(
            f"--pooled {path}: the folds have the heads {', '.join(own)}, and this network "
            f"{', '.join(heads)}; train the folds again"
        )
    return found


class HeldOut(NamedTuple):
    """What a fold's network says of the fold."""

    rows: list[int]
    """Of the cohort (N)."""
    logits_NL: torch.Tensor
    outlier_N: npt.NDArray[np.float64]
    """The score of the out-of-distribution flag, by the network's own training images."""


def held_out_bytes(
    rows: Sequence[int], logits_NL: torch.Tensor, outlier_N: npt.NDArray[np.float64]
) -> bytes:
    """The content of `HELD_OUT`, see `HeldOut`."""
    sink = io.BytesIO()
    np.savez(sink, rows=np.asarray(rows), logits=logits_NL.numpy(), outlier=outlier_N)
    return sink.getvalue()


def read_held_out(checkpoint: Path) -> HeldOut:
    """What the checkpoint of a fold has beside it.

    Raises UserError: the file is absent or damaged.
    """
    path = checkpoint / HELD_OUT
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            logits_NL = torch.from_numpy(found["logits"])
            return HeldOut(found["rows"].tolist(), logits_NL, found["outlier"])
    except Exception as error:  # whatever a reader of archives meets in a torn file
        raise UserError(
            f"{path}: absent or damaged; delete {checkpoint.parent} to train this fold again"
        ) from error
