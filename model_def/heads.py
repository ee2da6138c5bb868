"""The heads: what each one predicts, and how logits become probabilities, labels, coherence.

The one place to add a head: a `HeadSpec` in the training configuration, no code.

Shapes in names: B batch, M members, K heads, L logits: one for a binary head, one per label for a
categorical.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from model_def.label_sets import LabelSets

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Probability = Annotated[float, Field(gt=0, lt=1)]

Hierarchy = Literal["independent", "chain", "max_constraint"]
"""How a head's probability depends on its parent's, and thereby on the loss.

`independent`: not at all; the paper's, whose loss pulls them together.
`chain`: a head predicts the conditional probability given its parent; what is reported is the
product along the chain (as CORN does for ordinals, Shi, Cao & Raschka 2021,
https://arxiv.org/abs/2111.08851), so that no child is ever more probable than its parent.
`max_constraint`: a parent is at least as probable as its most probable child (C-HMCNN, Giunchiglia
& Lukasiewicz 2020, https://arxiv.org/abs/2010.10151).
"""


class HeadSpec(BaseModel):
    """One head of the network and the facts needed to read its output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    """Key of the head in results, for example `alnm`."""
    target: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(>=[1-9][0-9]*)?$")]
    """Cohort column that holds its label, or a count with a bound, for example `n_nodes>=2`."""
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    """What a radiologist reads: (negative, positive), or the labels of a categorical head as they
    stand in its column."""
    parent: Name | None = None
    """Head that must be positive where this one is: ALNM implies malignancy."""
    threshold: Probability = 0.5
    """Operating point: positive where the probability is greater (the paper uses 0.5)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Calibration: the logit is divided by it before the sigmoid (Guo et al. 2017)."""
    operating_points: dict[str, float] = {}
    """Thresholds that were chosen on validation, by name; `threshold` is the one in use."""
    given: str | None = None
    """What must be positive for the probability to speak of a lesion, as a `target`: `malignant`
    where an ALNM head learned from malignant lesions alone and is not multiplied with its parent's
    probability. None: it speaks of every lesion. Training sets it, from what it did."""
    label_sets: LabelSets | None = None
    """How sure a label is. Training sets it."""

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("two labels are equal; labels must be unique")
        return labels

    @property
    def categorical(self) -> bool:
        """Whether it chooses among more than two labels."""
        return len(self.labels) > 2

    @property
    def n_logits(self) -> int:
        """How many logits it has in the network."""
        return len(self.labels) if self.categorical else 1


class Score(NamedTuple):
    """What one head says of one image."""

    probability: float
    """Of the positive label; of a categorical head, of the label it gives."""
    label: str
    distribution: dict[str, float] | None
    """Probability of every label of a categorical head."""
    label_set: tuple[str, ...] | None = None
    """The labels that the image may have, see `LabelSets`; None where the card has no bounds."""
    spread: float | None = None
    """How far the members disagree, see `spread`: of `probability`; None of one network alone."""

    @property
    def uncertain(self) -> bool | None:
        """Whether the set is another than the label alone; None where there is no set."""
        return None if self.label_set is None else self.label_set != (self.label,)


def check_heads(heads: Sequence[HeadSpec]) -> None:
    """Raise ValueError unless names are unique and each parent is a binary head before it."""
    seen: dict[str, HeadSpec] = {}
    for head in heads:
        if head.name in seen:
            raise ValueError(f"heads: `{head.name}` is given twice; names must be unique")
        if head.parent is not None and head.parent not in seen:
            raise ValueError(
                f"heads: parent `{head.parent}` of `{head.name}` is not a head before it; "
                "list parents first"
            )
        if head.parent is not None and seen[head.parent].categorical:
            raise ValueError(
                f"heads: parent `{head.parent}` of `{head.name}` has more than two labels; "
                "a parent must be binary"
            )
        seen[head.name] = head
    if not seen:
        raise ValueError("heads: the list is empty; name at least one head")


def ancestors(head: HeadSpec, heads: Sequence[HeadSpec]) -> tuple[HeadSpec, ...]:
    """The head's parent, its parent's parent and so on."""
    by_name = {spec.name: spec for spec in heads}
    found: list[HeadSpec] = []
    while head.parent is not None:
        head = by_name[head.parent]
        found.append(head)
    return tuple(found)


def keep_heads(heads: Sequence[HeadSpec], names: Collection[str]) -> tuple[HeadSpec, ...]:
    """The heads of those names; where a parent is not kept, the nearest ancestor that is stands in.

    What implies the parent implies the parent's parent, too.
    """
    parents = {head.name: head.parent for head in heads}

    def nearest(parent: str | None) -> str | None:
        while parent is not None and parent not in names:
            parent = parents[parent]
        return parent

    return tuple(
        head.model_copy(update={"parent": nearest(head.parent)})
        for head in heads
        if head.name in names
    )


def logit_slices(heads: Sequence[HeadSpec]) -> dict[str, slice]:
    """Which logits belong to which head."""
    slices, start = {}, 0
    for head in heads:
        slices[head.name] = slice(start, start + head.n_logits)
        start += head.n_logits
    return slices


def probabilities(
    logits_BL: torch.Tensor, heads: Sequence[HeadSpec], hierarchy: Hierarchy
) -> torch.Tensor:
    """Calibrated probabilities in [0, 1], float64 (B, L), laid out as the logits.

    A binary head has the probability of its positive label. A categorical one has those of its
    labels; in a chain they sum to the parent's probability, else to 1.
    """
    slices = logit_slices(heads)
    found: dict[str, torch.Tensor] = {}
    for head in heads:
        scaled_Bn = logits_BL[:, slices[head.name]].double() / head.temperature
        own_Bn = scaled_Bn.softmax(dim=1) if head.categorical else scaled_Bn.sigmoid()
        chained = hierarchy == "chain" and head.parent is not None
        found[head.name] = own_Bn * found[str(head.parent)] if chained else own_Bn
    if hierarchy == "max_constraint":
        for head in reversed(heads):
            if head.parent is not None and not head.categorical:
                found[head.parent] = torch.maximum(found[head.parent], found[head.name])
    return torch.cat([found[head.name] for head in heads], dim=1)


def spread(
    logits_MBL: torch.Tensor, heads: Sequence[HeadSpec], hierarchy: Hierarchy
) -> torch.Tensor:
    """Standard deviation (divisor M - 1) of the members' probabilities, float64 (B, L).

    Of probabilities, not of logits: a reader knows what .05 is of a probability, and members whose
    logits are 6 and 9 say the same of an image. Each is calibrated as the mean is.
    """
    found = [probabilities(logits_BL, heads, hierarchy) for logits_BL in logits_MBL]
    return torch.stack(found).std(dim=0)


def deciding(
    logits_L: torch.Tensor, heads: Sequence[HeadSpec], hierarchy: Hierarchy
) -> dict[str, str]:
    """The head whose own logit gives each head its probability, of one row.

    It is the head itself, but under a max-constraint the most probable one of it and what implies
    it; of equal ones the nearest to it. (In a chain the parents' logits count as well.)
    """
    slices = logit_slices(heads)
    decides = {head.name: head.name for head in heads}
    if hierarchy == "max_constraint":
        # Not the probabilities: they are equal where two logits are large.
        scaled = {
            head.name: float(logits_L[slices[head.name].start]) / head.temperature for head in heads
        }
        for head in reversed(heads):
            if head.parent is None or head.categorical:
                continue
            if scaled[decides[head.name]] > scaled[decides[head.parent]]:
                decides[head.parent] = decides[head.name]
    return decides


def is_positive(head: HeadSpec, probability: float) -> bool:
    """Whether `probability` lies above the operating point; equal counts as negative."""
    return probability > head.threshold


def read(
    probability_L: Sequence[float],
    heads: Sequence[HeadSpec],
    spread_L: Sequence[float] | None = None,
) -> dict[str, Score]:
    """What each head says, from one row of `probabilities`, and of `spread` with several members.

    A categorical head gives its most probable label (of equal ones the first).
    """
    slices = logit_slices(heads)
    scores = {}
    for head in heads:
        own = probability_L[slices[head.name]]
        if head.categorical:
            distribution = dict(zip(head.labels, own, strict=True))
            label = max(distribution, key=lambda name: distribution[name])
            score = Score(distribution[label], label, distribution)
        else:
            distribution = dict(zip(head.labels, (1 - own[0], own[0]), strict=True))
            score = Score(own[0], head.labels[is_positive(head, own[0])], None)
        within = None if head.label_sets is None else head.label_sets.holds(distribution)
        apart = None
        if spread_L is not None:
            place = head.labels.index(score.label) if head.categorical else 0
            apart = spread_L[slices[head.name]][place]
        scores[head.name] = score._replace(label_set=within, spread=apart)
    return scores


def is_consistent(heads: Sequence[HeadSpec], scores: Mapping[str, Score]) -> bool:
    """False where a head is positive and its parent negative (ALNM without malignancy)."""
    binary = [head for head in heads if not head.categorical]
    positive = {head.name for head in binary if scores[head.name].label == head.labels[1]}
    return all(
        head.parent is None or head.parent in positive or head.name not in positive
        for head in binary
    )
