"""The ROC AUCs that a training prints and logs, on the sets that `evaluate` measures on.

Shapes in names: N images, K heads, L logits of all heads, n of one head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torchmetrics.functional.classification import binary_auroc, multiclass_auroc

from model_def.heads import (
    HeadSpec,
    logit_slices,
)
from train.cohorts.labels import implied, measured_on


@dataclasses.dataclass(frozen=True)
class HeadAuc:
    """ROC AUC of one head on one set of images; None where it is undefined (one class only)."""

    head: str
    on: str
    """`all`, or whose positives: the paper evaluates ALNM on malignant lesions."""
    n_images: int
    n_positive: int | None
    """None for a categorical head, whose AUC is the mean of one label against the rest."""
    auc: float | None


def head_aucs(
    probability_NL: torch.Tensor,
    labels_NK: torch.Tensor,
    heads: tuple[HeadSpec, ...],
    beside: Mapping[str, torch.Tensor] = {},
) -> list[HeadAuc]:
    """AUCs of every head that has labels, on the sets that `evaluate` measures it on.

    `beside`: labels (N,) of what is no head here but a head's probability is given, by target.
    """
    slices = logit_slices(heads)
    index = {head.name: k for k, head in enumerate(heads)}
    labels_NK = implied(labels_NK, heads)
    found = []
    for k, head in enumerate(heads):
        known_N = ~labels_NK[:, k].isnan()
        sets = {}
        if head.given is not None and head.given in beside:
            sets[f"{head.given} positive"] = known_N & (beside[head.given] == 1)
        for name in measured_on(head, heads):
            sets[f"{name} positive"] = known_N & (labels_NK[:, index[name]] == 1)
        for on, chosen_N in {**sets, "all": known_N}.items():
            label_N = labels_NK[chosen_N, k].long()
            if not len(label_N):
                continue
            defined = len(set(label_N.tolist())) == len(head.labels)
            score_Nn = probability_NL[chosen_N][:, slices[head.name]]
            auc = float(_auroc(score_Nn, label_N)) if defined else None
            n_positive = None if head.categorical else int(label_N.sum())
            found.append(HeadAuc(head.name, on, len(label_N), n_positive, auc))
    return found


def _auroc(score_Nn: torch.Tensor, label_N: torch.Tensor) -> torch.Tensor:
    if score_Nn.shape[1] == 1:
        return binary_auroc(score_Nn[:, 0], label_N)
    return multiclass_auroc(score_Nn, label_N, num_classes=score_Nn.shape[1])
