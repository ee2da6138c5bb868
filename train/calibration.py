"""Temperature and operating points of each head, from the validation part.

Shapes in names: N images, K heads, L logits of all heads, n logits of one head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from model_def.heads import HeadSpec, Hierarchy, logit_slices, probabilities
from sonode_console import say
from train.losses import child_labels, masked_cross_entropy
from train.statistics import choose_threshold

RULES = ("youden", "sensitivity_0.90")
TEMPERATURES = (0.5, 10.0)  # ours: beyond them a validation part is too small or too easy to tell
FEWEST = 20  # labelled validation images, fewer do not carry a temperature (ours)


def calibrate(
    logits_NL: torch.Tensor,
    labels_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    operating_point: str,
) -> tuple[HeadSpec, ...]:
    """The heads with their temperature and operating points.

    Each head is calibrated on the images that it learns from (its parent's positives), where its
    temperature minimises the cross entropy (Guo et al. 2017, https://arxiv.org/abs/1706.04599);
    thresholds are chosen there on the calibrated probability that is reported. What validation
    cannot tell stays as it is, and is said: temperature 1, threshold 0.5.
    """
    conditional: Hierarchy = "chain" if hierarchy == "chain" else "independent"
    learned_NK = child_labels(labels_NK, heads, conditional, "mask")
    slices = logit_slices(heads)
    scaled = []
    for k, head in enumerate(heads):
        known_N = ~learned_NK[:, k].isnan()
        logits_Nn, labels_N1 = logits_NL[known_N, slices[head.name]], learned_NK[known_N, k : k + 1]
        scaled.append(
            head.model_copy(update={"temperature": _temperature(head, logits_Nn, labels_N1)})
        )
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
        chosen = {rule: choose_threshold(truth_N, p_N, rule) for rule in RULES}
        points = {"0.5": 0.5, **{rule: at for rule, at in chosen.items() if at is not None}}
        if operating_point not in points:
            say(f"head {head.name}: validation gives no {operating_point} threshold; 0.5 is kept")
        facts = {"operating_points": points, "threshold": points.get(operating_point, 0.5)}
        done.append(head.model_copy(update=facts))
    return tuple(done)


def _temperature(head: HeadSpec, logits_Nn: torch.Tensor, labels_N1: torch.Tensor) -> float:
    if len(labels_N1) < FEWEST or len(labels_N1.unique()) < 2:  # type: ignore[no-untyped-call]
        say(
            f"head {head.name}: {len(labels_N1)} validation labels do not carry a temperature; "
            "1 is kept"
        )
        return 1.0
    alone = [head.model_copy(update={"parent": None})]

    def cross_entropy(log_temperature: float) -> float:
        scaled_Nn = logits_Nn.double() / np.exp(log_temperature)
        return float(masked_cross_entropy(scaled_Nn, labels_N1.double(), alone))

    lowest, highest = np.log(TEMPERATURES)
    found = minimize_scalar(cross_entropy, bounds=(lowest, highest), method="bounded")
    return float(np.exp(found.x))
