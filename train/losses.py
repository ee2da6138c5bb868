"""The paper's loss: masked binary cross entropies and the hierarchical term.

Shapes in names: B batch, K heads. A missing label is NaN and never enters a term.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn.functional import binary_cross_entropy_with_logits

from model_def.heads import HeadSpec


class LossSettings(BaseModel):
    """Weights of the loss; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hierarchy_weight: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the hierarchical term."""
    margin: Annotated[float, Field(ge=0, le=1)] = 0.1
    """How far a child's probability may exceed its parent's before the term acts."""
    parent_negative: Literal["mask", "negative"] = "mask"
    """Samples whose parent label is negative: leave them out of the child's term, or use the
    child's label as it is. The paper's ALNM set holds the malignant images only, hence `mask`."""


def child_labels(
    labels_BK: torch.Tensor, heads: Sequence[HeadSpec], parent_negative: Literal["mask", "negative"]
) -> torch.Tensor:
    """The labels that each head learns from (B, K): under `mask`, NaN where the parent is 0."""
    if parent_negative == "negative":
        return labels_BK
    learned = labels_BK.clone()
    index = {head.name: k for k, head in enumerate(heads)}
    for k, head in enumerate(heads):
        if head.parent is not None:
            learned[labels_BK[:, index[head.parent]] == 0, k] = torch.nan
    return learned


def masked_bce(logits_BK: torch.Tensor, labels_BK: torch.Tensor) -> torch.Tensor:
    """Sum over heads of the mean cross entropy over the samples labelled for that head.

    A head without a label in the batch adds 0.
    """
    known_BK = ~labels_BK.isnan()
    each_BK = binary_cross_entropy_with_logits(
        logits_BK, labels_BK.nan_to_num(0.0), reduction="none"
    )
    total_K = (each_BK * known_BK).sum(dim=0)
    return (total_K / known_BK.sum(dim=0).clamp(min=1)).sum()


def hierarchical(logits_BK: torch.Tensor, heads: Sequence[HeadSpec], margin: float) -> torch.Tensor:
    """Mean over the batch of max(0, p_child - p_parent - margin), summed over such pairs.

    Derived from the paper's text (its equation is an image): gradients only where the child's
    confidence exceeds the parent's by more than the margin. One-sided, because malignancy without
    metastasis is common and coherent.
    """
    probability_BK = torch.sigmoid(logits_BK)
    index = {head.name: k for k, head in enumerate(heads)}
    loss = logits_BK.new_zeros(())
    for k, head in enumerate(heads):
        if head.parent is not None:
            gap_B = probability_BK[:, k] - probability_BK[:, index[head.parent]] - margin
            loss = loss + gap_B.clamp(min=0).mean()
    return loss


def total(
    logits_BK: torch.Tensor,
    labels_BK: torch.Tensor,
    heads: Sequence[HeadSpec],
    settings: LossSettings,
) -> torch.Tensor:
    """The loss that training minimises: masked cross entropies + weight x hierarchical term."""
    learned_BK = child_labels(labels_BK, heads, settings.parent_negative)
    return masked_bce(logits_BK, learned_BK) + settings.hierarchy_weight * hierarchical(
        logits_BK, heads, settings.margin
    )
