"""Temperature, operating points and label sets of each head, from the validation part.

Shapes in names: N images, K heads, L logits of all heads, n logits of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from model_def.heads import HeadSpec, Hierarchy, logit_slices, probabilities, read
from sonode.console import UserError, say
from train.cohorts.labels import ParentNegative, child_labels
from train.fitting.calibration.conformal import with_label_sets
from train.fitting.calibration.temperature import fits
from train.statistics.binary import choose_threshold

RULES = ("youden", "sensitivity_0.90")  # in every card; another sensitivity is, where it is served
OPERATING_POINT = r"^(0\.5|youden|sensitivity_0\.\d*[1-9]\d*)$"
"""Which threshold is served: `sensitivity_0.95` is the highest that has it on validation."""
SCORE_BINS = 20


class Calibrated(NamedTuple):
    """Heads with their facts, and how each came by its temperature: for the card."""

    heads: tuple[HeadSpec, ...]
    account: dict[str, dict[str, Any]]
    """By head: temperature, images, patients, and why it is that."""


def calibrate(
    logits_NL: torch.Tensor,
    labels_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
    operating_point: str,
    patient_N: Sequence[str],
    level: float,
) -> Calibrated:
    """The heads with their temperature, operating points and label sets.

    Each head is calibrated on the images that it learns from (see `child_labels`: its parent's
    positives, or all under max constraint and where `parent_negative` is `negative`), where its
    temperature minimises the cross entropy (Guo et al. 2017, https://arxiv.org/abs/1706.04599);
    thresholds are chosen there on the calibrated probability that is reported. What validation
    cannot decide stays as it is, with a message: temperature 1 with few patients or at a bound, and
    threshold 0.5. `level`: what label sets promise.

    So that a few patients cannot make a network too sure, nor separable ones infinitely so, the
    labels are smoothed (Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567) by one
    patient more, whose label nobody knows: of n patients and L labels, a row counts
    (n + 1/L) / (n + 1) for its own label and 1/L / (n + 1) for each other one. A patient counts
    once: the patient's rows share the weight.

    Raises UserError: a logit is not a finite number.
    """
    if wrong := int((~logits_NL.isfinite().all(dim=1)).sum()):
        raise UserError(
            f"calibration: the network's output is not a finite number for {wrong} of "
            f"{len(logits_NL)} images; train it again, with a lower learning rate"
        )
    learned_NK = child_labels(labels_NK, heads, hierarchy, parent_negative)
    slices = logit_slices(heads)
    found = fits(logits_NL, learned_NK, heads, hierarchy, patient_N)
    account = {name: fit.account() for name, fit in found.items()}
    for name, facts in account.items():
        if facts["temperature"] == 1:
            say(f"head {name}: temperature 1 is kept: {facts['why']}")
    scaled = [
        head.model_copy(update={"temperature": account[head.name]["temperature"]}) for head in heads
    ]
    probability_NL = probabilities(logits_NL, scaled, hierarchy).numpy()
    done = []
    for k, head in enumerate(scaled):
        if head.categorical:
            done.append(head)
            continue
        label_N = learned_NK[:, k].numpy()
        labelled_N = ~np.isnan(label_N)
        truth_N = label_N[labelled_N] == 1
        p_N = probability_NL[labelled_N, slices[head.name].start]
        rules = dict.fromkeys(rule for rule in (*RULES, operating_point) if rule != "0.5")
        chosen = {rule: choose_threshold(truth_N, p_N, rule) for rule in rules}
        points = {"0.5": 0.5, **{rule: at for rule, at in chosen.items() if at is not None}}
        if operating_point not in points:
            say(f"head {head.name}: no {operating_point} threshold in the data; 0.5 is kept")
        facts = {"operating_points": points, "threshold": points.get(operating_point, 0.5)}
        done.append(head.model_copy(update=facts))
    sure = with_label_sets(done, hierarchy, probability_NL, learned_NK.numpy(), patient_N, level)
    return Calibrated(sure, account)


def score_histograms(
    logits_NL: torch.Tensor, heads: Sequence[HeadSpec], hierarchy: Hierarchy
) -> dict[str, list[int]]:
    """How many images have a probability in each of 20 equal bins from 0 to 1, by head.

    The probability is the one that is served: of the positive label, and of a categorical head of
    the label it gives. In the model card the batch's report compares its scores with it.
    """
    rows = probabilities(logits_NL, heads, hierarchy).tolist()
    scores = [read(row, heads) for row in rows]
    return {
        head.name: np.histogram(
            [score[head.name].probability for score in scores], SCORE_BINS, (0, 1)
        )[0].tolist()
        for head in heads
    }
