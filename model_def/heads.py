"""The heads: what each one predicts, and how logits become probabilities, labels, coherence.

The one place to add a head: a `HeadSpec` in the training configuration, no code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class HeadSpec(BaseModel):
    """One binary head of the network and the facts needed to read its output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    """Key of the head in results, for example `alnm`."""
    target: Name
    """Cohort column that holds its label (true, false or missing)."""
    labels: tuple[str, str]
    """What a radiologist reads for (negative, positive), for example ("benign", "malignant")."""
    parent: Name | None = None
    """Head that must be positive where this one is: ALNM implies malignancy."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Operating point: positive where the probability is greater (the paper uses 0.5)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Calibration: the logit is divided by it before the sigmoid (Guo et al. 2017)."""


def check_heads(heads: Sequence[HeadSpec]) -> None:
    """Raise ValueError unless names are unique and each parent stands before its child."""
    seen: set[str] = set()
    for head in heads:
        if head.name in seen:
            raise ValueError(f"heads: `{head.name}` is given twice; names must be unique")
        if head.parent is not None and head.parent not in seen:
            raise ValueError(
                f"heads: parent `{head.parent}` of `{head.name}` is not a head before it; "
                "list parents first"
            )
        seen.add(head.name)
    if not seen:
        raise ValueError("heads: the list is empty; name at least one head")


def probabilities(logits_BK: torch.Tensor, heads: Sequence[HeadSpec]) -> torch.Tensor:
    """Calibrated probabilities in [0, 1], float64 (B, K), from logits (B, K) in head order."""
    temperature_K = torch.tensor([head.temperature for head in heads], dtype=torch.float64)
    return torch.sigmoid(logits_BK.double() / temperature_K.to(logits_BK.device))


def is_positive(head: HeadSpec, probability: float) -> bool:
    """Whether `probability` lies above the operating point; equal counts as negative."""
    return probability > head.threshold


def is_consistent(heads: Sequence[HeadSpec], scores: Mapping[str, float]) -> bool:
    """False where a head is positive and its parent negative (ALNM without malignancy)."""
    positive = {head.name: is_positive(head, scores[head.name]) for head in heads}
    return all(
        head.parent is None or positive[head.parent] or not positive[head.name] for head in heads
    )
