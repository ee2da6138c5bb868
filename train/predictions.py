"""What a model says about one part of a cohort, beside the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from model_def.heads import HeadSpec


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Calibrated probabilities and labels of the lesion boxes of one part."""

    frame: pd.DataFrame
    """One row per lesion box: patient_id, lesion_id, image, device, roi_*, n_nodes, and for each
    head NAME its `NAME_truth` (NA = missing) and `NAME_probability` in 0..1; a head of more than
    two labels has a `NAME_probability_LABEL` for each."""
    heads: tuple[HeadSpec, ...]
    hierarchy: str
    """independent, chain or max_constraint: how logits became probabilities."""
    about: dict[str, Any]
    """Where model, cohort and part come from, as JSON; nothing that names a patient."""


def predict(checkpoint: Path, cohort: Path, part: str) -> Predictions:
    """Score the rows of `part` with the checkpoint."""
    raise NotImplementedError
