"""What training minimises: masked cross entropies, and how heads are held together.

Shapes in names: B batch, K heads, L logits (see `model_def.heads`). A label is 0 or 1, of a
categorical head the position of its label; a missing one is NaN and never enters a term.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    logsigmoid,
)

from model_def.heads import HeadSpec, Hierarchy, logit_slices
from train.cohorts.labels import ParentNegative, child_labels, implied


class LossSettings(BaseModel):
    """Weights of the loss; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hierarchy_weight: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the hierarchical term of independent heads."""
    margin: Annotated[float, Field(ge=0, le=1)] = 0.1
    """How far a child's probability may exceed its parent's before the term acts."""
    parent_negative: ParentNegative = "mask"
    """Independent heads, samples whose parent label is negative: leave them out of the child's
    term, or use the child's label, which is negative where it is blank. The paper's ALNM set holds
    the malignant images only, hence `mask`."""


def spoken_of(
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
    *,
    malignant_only: bool,
) -> tuple[HeadSpec, ...]:
    """The heads with what their probability is given (`HeadSpec.given`), by what they learn from.

    An independent head that learns from its parent's positives has a conditional probability. A
    chain's product speaks of what its first head speaks of: every lesion, or the malignant ones
    where no other was trained on (`malignant_only`).
    """
    target = {head.name: head.target for head in heads}
    conditional = hierarchy == "independent" and parent_negative == "mask"
    rest = "malignant" if malignant_only else None
    return tuple(
        head.model_copy(update={"given": target[head.parent]})
        if conditional and head.parent is not None
        else head.model_copy(update={"given": rest if head.target != rest else None})
        for head in heads
    )


def masked_cross_entropy(
    logits_BL: torch.Tensor, labels_BK: torch.Tensor, heads: Sequence[HeadSpec]
) -> torch.Tensor:
    """Sum over heads of the mean cross entropy over the samples labelled for that head.

    A head without a label in the batch adds 0.
    """
    slices = logit_slices(heads)
    loss = logits_BL.new_zeros(())
    for k, head in enumerate(heads):
        label_B, logits_Bn = labels_BK[:, k], logits_BL[:, slices[head.name]]
        known_B = ~label_B.isnan()
        target_B = label_B.nan_to_num(0.0)
        if head.categorical:
            each_B = cross_entropy(logits_Bn, target_B.long(), reduction="none")
        else:
            each_B = binary_cross_entropy_with_logits(logits_Bn[:, 0], target_B, reduction="none")
        loss = loss + (each_B * known_B).sum() / known_B.sum().clamp(min=1)
    return loss


def hierarchical(logits_BL: torch.Tensor, heads: Sequence[HeadSpec], margin: float) -> torch.Tensor:
    """Mean over the batch of max(0, p_child - p_parent - margin), summed over binary such pairs.

    Derived from the paper's text (its equation is an image): gradients only where the child's
    confidence exceeds the parent's by more than the margin. One-sided, because malignancy without
    metastasis is common and coherent.
    """
    probability_BL = torch.sigmoid(logits_BL)
    slices = logit_slices(heads)
    loss = logits_BL.new_zeros(())
    for head in heads:
        if head.parent is not None and not head.categorical:
            parent_B1 = probability_BL[:, slices[head.parent]]
            gap_B1 = probability_BL[:, slices[head.name]] - parent_B1 - margin
            loss = loss + gap_B1.clamp(min=0).mean()
    return loss


def max_constrained(
    logits_BL: torch.Tensor, labels_BK: torch.Tensor, heads: Sequence[HeadSpec]
) -> torch.Tensor:
    """Masked cross entropy of max-constrained probabilities (MCLoss, C-HMCNN).

    (Giunchiglia & Lukasiewicz 2020, https://arxiv.org/abs/2010.10151, section 4.) A negative parent
    pays for its most probable child; a positive one takes credit only from children that are
    positive themselves, so a wrong child is never pulled up by its parent's label. Binary heads
    only take part; a categorical one has its own cross entropy.
    """
    slices = logit_slices(heads)
    binary = [k for k, head in enumerate(heads) if not head.categorical]
    own = {heads[k].name: logits_BL[:, slices[heads[k].name].start] for k in binary}
    # The sigmoid rises, so the largest probability is that of the largest logit.
    nothing = torch.finfo(logits_BL.dtype).min
    constrained = dict(own)
    credited = {
        heads[k].name: own[heads[k].name].masked_fill(labels_BK[:, k] != 1, nothing) for k in binary
    }
    for k in reversed(binary):
        name, parent = heads[k].name, heads[k].parent
        if parent is not None:
            for found in (constrained, credited):
                found[parent] = torch.maximum(found[parent], found[name])
    chosen_BL = logits_BL.clone()
    for k in binary:
        name = heads[k].name
        chosen_BL[:, slices[name].start] = torch.where(
            labels_BK[:, k] == 1, credited[name], constrained[name]
        )
    return masked_cross_entropy(chosen_BL, labels_BK, heads)


def chain_likelihood(
    logits_BL: torch.Tensor, labels_BK: torch.Tensor, heads: Sequence[HeadSpec]
) -> torch.Tensor:
    """Mean over the batch of -log P(the labels that a row has), by the chain's conditionals.

    A known label has its conditional's factor, under a positive parent; a missing one is summed
    over both answers, so that `no ALNM` of a lesion of unknown malignancy costs
    -log(1 - P(malignant) P(ALNM | malignant)), and `ALNM` costs the factors of both. To leave such
    rows out, or only the negative ones, would move the conditional. Every row counts, also one
    without labels, which costs 0: its head's logits get no gradient.
    """
    slices = logit_slices(heads)
    nothing_B = logits_BL.new_zeros(len(logits_BL))
    # Of the heads below each one, where it is positive (None: of all): the log-likelihood of their
    # labels, whether there are any, and whether one implies that it is.
    above = (None, *(head.name for head in heads))
    log = dict.fromkeys(above, nothing_B)
    any_known, implies = dict.fromkeys(above, nothing_B > 0), dict.fromkeys(above, nothing_B > 0)
    for k, head in reversed(list(enumerate(heads))):
        name, label_B, logits_Bn = head.name, labels_BK[:, k], logits_BL[:, slices[head.name]]
        known_B = ~label_B.isnan()
        if head.categorical:  # its labels are ones that only the parent's positives have
            each_B = -cross_entropy(logits_Bn, label_B.nan_to_num(0.0).long(), reduction="none")
            each_B, positive_B = each_B.where(known_B, nothing_B), known_B
        else:
            yes_B, no_B = logsigmoid(logits_Bn[:, 0]) + log[name], logsigmoid(-logits_Bn[:, 0])
            positive_B = (label_B == 1) | (~known_B & implies[name])
            either_B = torch.logaddexp(yes_B, no_B).where(any_known[name], nothing_B)
            each_B = yes_B.where(positive_B, no_B.where(known_B, either_B))
        log[head.parent] = log[head.parent] + each_B
        any_known[head.parent] = any_known[head.parent] | known_B | any_known[name]
        implies[head.parent] = implies[head.parent] | positive_B
    return -log[None].mean()


def total(
    logits_BL: torch.Tensor,
    labels_BK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    settings: LossSettings,
) -> torch.Tensor:
    """The loss under a hierarchy.

    `independent`: masked cross entropies + weight x hierarchical term, each head averaged over its
    own rows. `chain`: `chain_likelihood`, one sum over one count. Each factor over its own rows
    would have the same optimum in each conditional, but a head that few rows know would weigh more
    in the shared trunk. Over five seeds (phantom of 160 patients, nodal burden, ResNet18, 64
    pixels, 10 epochs; test ROC AUC) that gave malignancy .977, ALNM .975, 2 nodes or more .862, 3
    .825, 4 .866; one count .981, .992, .866, .823 and .880. ALNM differs most (paired p .07). Brier
    scores went down for malignancy (.079 to .059) and ALNM (.067 to .046), up for the burden (.075
    to .083).
    `max_constraint`: `max_constrained`.
    """
    if hierarchy == "max_constraint":
        return max_constrained(logits_BL, implied(labels_BK, heads), heads)
    if hierarchy == "chain":
        return chain_likelihood(logits_BL, labels_BK, heads)
    learned_BK = child_labels(labels_BK, heads, hierarchy, settings.parent_negative)
    loss = masked_cross_entropy(logits_BL, learned_BK, heads)
    return loss + settings.hierarchy_weight * hierarchical(logits_BL, heads, settings.margin)
