"""Temperature and operating points of each head, from the validation part.

Shapes in names: N images, K heads, L logits of all heads, n logits of one head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from model_def.heads import HeadSpec, Hierarchy, logit_slices, probabilities, read
from sonode_console import say
from train.losses import ParentNegative, child_labels, masked_cross_entropy
from train.statistics import choose_threshold

RULES = ("youden", "sensitivity_0.90")  # in every card; another sensitivity is, where it is served
OPERATING_POINT = r"^(0\.5|youden|sensitivity_0\.\d*[1-9]\d*)$"
"""Which threshold is served: `sensitivity_0.95` is the highest that has it on validation."""
TEMPERATURES = (0.5, 10.0)  # ours: beyond them a validation part is too small or too easy to tell
SCORE_BINS = 20
FEWEST = 20  # labelled validation images, fewer do not carry a temperature (ours)


def calibrate(
    logits_NL: torch.Tensor,
    labels_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
    operating_point: str,
) -> tuple[HeadSpec, ...]:
    """The heads with their temperature and operating points.

    Each head is calibrated on the images that it learns from (see `child_labels`: its parent's
    positives, or all under max constraint and where `parent_negative` is `negative`), where its
    temperature minimises the cross entropy (Guo et al. 2017, https://arxiv.org/abs/1706.04599);
    thresholds are chosen there on the calibrated probability that is reported. What validation
    cannot tell stays as it is, and is said: temperature 1, threshold 0.5.
    """
    learned_NK = child_labels(labels_NK, heads, hierarchy, parent_negative)
    slices = logit_slices(heads)
    fitted = _fit(logits_NL, learned_NK, heads, hierarchy, fewest=FEWEST)
    for head, (temperature, _) in zip(heads, fitted, strict=True):
        if any(math.isclose(temperature, bound, rel_tol=0.01) for bound in TEMPERATURES):
            say(
                f"head {head.name}: its temperature ran into the bound {temperature:.2g}; the "
                "validation part is too small or too easy to tell"
            )
    scaled = [
        head.model_copy(update={"temperature": temperature})
        for head, (temperature, _) in zip(heads, fitted, strict=True)
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
            say(f"head {head.name}: validation gives no {operating_point} threshold; 0.5 is kept")
        facts = {"operating_points": points, "threshold": points.get(operating_point, 0.5)}
        done.append(head.model_copy(update=facts))
    return tuple(done)


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


def calibrated_loss(
    logits_NL: torch.Tensor,
    labels_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
) -> float:
    """Sum over heads of the mean cross entropy that is left once temperatures are fitted.

    It is of the images that each head learns from, and by it the epoch to keep is chosen: the plain
    loss would punish a network for overconfidence that its temperatures remove afterwards.
    """
    learned_NK = child_labels(labels_NK, heads, hierarchy, parent_negative)
    return sum(loss for _, loss in _fit(logits_NL, learned_NK, heads, hierarchy, fewest=0))


def _fit(
    logits_NL: torch.Tensor,
    learned_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    *,
    fewest: int,
) -> list[tuple[float, float]]:
    """Temperature of each head, and the mean cross entropy that it leaves.

    Children first: a max-constrained parent reports no less than they do, and its temperature is
    the best for what it reports. With less than `fewest` labels, or one class, a head keeps 1.
    """
    slices = logit_slices(heads)
    least_NL = torch.full_like(logits_NL, -torch.inf, dtype=torch.float64)
    found: dict[str, tuple[float, float]] = {}
    for k, head in reversed(list(enumerate(heads))):
        own, known_N = slices[head.name], ~learned_NK[:, k].isnan()
        label_N1 = learned_NK[known_N, k : k + 1]
        if fewest and (len(label_N1) < fewest or len(set(label_N1.flatten().tolist())) < 2):
            say(
                f"head {head.name}: {len(label_N1)} validation labels do not carry a temperature; "
                "1 is kept"
            )
            found[head.name] = 1.0, math.nan
        else:
            found[head.name] = _fit_temperature(
                head, logits_NL[known_N, own], label_N1, least_NL[known_N, own]
            )
        if hierarchy == "max_constraint" and head.parent is not None and not head.categorical:
            above = slices[head.parent]
            scaled_N1 = logits_NL[:, own].double() / found[head.name][0]
            reported_N1 = torch.maximum(scaled_N1, least_NL[:, own])
            least_NL[:, above] = torch.maximum(least_NL[:, above], reported_N1)
    return [found[head.name] for head in heads]


def _fit_temperature(
    head: HeadSpec, logits_Nn: torch.Tensor, labels_N1: torch.Tensor, least_Nn: torch.Tensor
) -> tuple[float, float]:
    """The temperature of the least cross entropy, and that cross entropy."""
    alone = [head.model_copy(update={"parent": None})]

    def cross_entropy(log_temperature: float) -> float:
        scaled_Nn = torch.maximum(logits_Nn.double() / np.exp(log_temperature), least_Nn)
        return float(masked_cross_entropy(scaled_Nn, labels_N1.double(), alone))

    lowest, highest = np.log(TEMPERATURES)
    found = minimize_scalar(cross_entropy, bounds=(lowest, highest), method="bounded")
    return float(np.exp(found.x)), float(found.fun)
