"""Temperature, operating points and label sets of each head, from the validation part.

Shapes in names: N images, K heads, L logits of all heads, n logits of one head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from sklearn.model_selection import GroupKFold

from model_def.heads import HeadSpec, Hierarchy, logit_slices, probabilities, read
from sonode.console import say
from train.cohorts.labels import ParentNegative, child_labels
from train.fitting.conformal import with_label_sets
from train.fitting.losses import chain_likelihood, masked_cross_entropy
from train.statistics.binary import choose_threshold

RULES = ("youden", "sensitivity_0.90")  # in every card; another sensitivity is, where it is served
OPERATING_POINT = r"^(0\.5|youden|sensitivity_0\.\d*[1-9]\d*)$"
"""Which threshold is served: `sensitivity_0.95` is the highest that has it on validation."""
TEMPERATURES = (
    0.5,
    10.0,
)  # ours: beyond them a validation part is too small or too easy to separate
SCORE_BINS = 20
FEWEST_PATIENTS, FEWEST_OF_A_LABEL = 30, 5
"""Labelled validation patients, of all labels and of each, to fit a temperature from (ours).

Simulated with logits of SD 1.5, 120 draws each, cross entropy against that of temperature 1: where
1 is right, a fit from 10 patients costs .039, from 20 .022, from 30 .018 (and .006 where it must
gain by cross-validation as well); where 1.5 is right it costs .052, .010, .001, and gains from 40.
"""
FOLDS = 5


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
    cannot decide stays as it is, with a message: temperature 1 with few patients, at a bound, or
    where a temperature fitted on the other patients does not lower the cross entropy of those that
    were left out (5-fold cross-validation by patient); threshold 0.5. `level`: what label sets
    promise.
    """
    learned_NK = child_labels(labels_NK, heads, hierarchy, parent_negative)
    slices = logit_slices(heads)
    account = _fit_or_keep(logits_NL, learned_NK, heads, hierarchy, np.asarray(patient_N))
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


def calibrated_loss(
    logits_NL: torch.Tensor,
    labels_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
) -> float:
    """The loss that is left once temperatures are fitted: by it the epoch to keep is chosen.

    The plain loss would punish a network for overconfidence that its temperatures remove
    afterwards. Of a chain it is its likelihood, as in training; else the sum over heads of the mean
    cross entropy on the images that each learns from.
    """
    learned_NK = child_labels(labels_NK, heads, hierarchy, parent_negative)
    slices, losses = logit_slices(heads), []
    scaled_NL = logits_NL.to(torch.float64, copy=True)

    def fitted(name: str, one: _Rows) -> float:
        temperature, loss = one.fit()
        scaled_NL[:, slices[name]] /= temperature
        losses.append(loss)
        return temperature

    _walk(logits_NL, learned_NK, heads, hierarchy, fitted)
    if hierarchy == "chain":
        return float(chain_likelihood(scaled_NL, labels_NK, heads))
    return sum(losses)


class _Rows(NamedTuple):
    """What one head's temperature is fitted on: n rows that have its label."""

    head: HeadSpec
    logits_Nn: torch.Tensor
    labels_N1: torch.Tensor
    least_Nn: torch.Tensor
    """What its children report, which a max-constrained parent reports at least."""
    known_N: torch.Tensor
    """Which of all rows they are."""

    def of(self, rows_N: npt.NDArray[np.bool_]) -> _Rows:
        rows = torch.from_numpy(rows_N)
        some = self.logits_Nn[rows], self.labels_N1[rows], self.least_Nn[rows]
        return _Rows(self.head, *some, self.known_N)

    def cross_entropy(self, temperature: float) -> float:
        """The mean over the rows."""
        alone = [self.head.model_copy(update={"parent": None})]
        scaled_Nn = torch.maximum(self.logits_Nn.double() / temperature, self.least_Nn)
        return float(masked_cross_entropy(scaled_Nn, self.labels_N1.double(), alone))

    def fit(self) -> tuple[float, float]:
        """The temperature of the least cross entropy, and that cross entropy."""
        lowest, highest = np.log(TEMPERATURES)
        found = minimize_scalar(
            lambda log: self.cross_entropy(math.exp(log)),
            bounds=(lowest, highest),
            method="bounded",
        )
        return float(np.exp(found.x)), float(found.fun)


def _walk(
    logits_NL: torch.Tensor,
    learned_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    temperature_of: Callable[[str, _Rows], float],
) -> None:
    """Ask for each head's temperature, children first.

    A max-constrained parent reports no less than they do, and its temperature is the best for what
    it reports.
    """
    slices = logit_slices(heads)
    least_NL = torch.full_like(logits_NL, -torch.inf, dtype=torch.float64)
    for k, head in reversed(list(enumerate(heads))):
        own, known_N = slices[head.name], ~learned_NK[:, k].isnan()
        labels_N1 = learned_NK[known_N, k : k + 1]
        rows = _Rows(head, logits_NL[known_N, own], labels_N1, least_NL[known_N, own], known_N)
        temperature = temperature_of(head.name, rows)
        if hierarchy == "max_constraint" and head.parent is not None and not head.categorical:
            above = slices[head.parent]
            reported_N1 = torch.maximum(logits_NL[:, own].double() / temperature, least_NL[:, own])
            least_NL[:, above] = torch.maximum(least_NL[:, above], reported_N1)


def _fit_or_keep(
    logits_NL: torch.Tensor,
    learned_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    patient_N: npt.NDArray[Any],
) -> dict[str, dict[str, Any]]:
    """The account of each head, see `Calibrated`."""
    found: dict[str, dict[str, Any]] = {}

    def choose(name: str, rows: _Rows) -> float:
        own_N = patient_N[rows.known_N.numpy()]
        temperature, why = _chosen(rows, own_N)
        images, patients = len(own_N), len(set(own_N.tolist()))
        facts = {"temperature": temperature, "images": images, "patients": patients, "why": why}
        found[name] = facts
        return temperature

    _walk(logits_NL, learned_NK, heads, hierarchy, choose)
    return {head.name: found[head.name] for head in heads}


def _chosen(rows: _Rows, patient_N: npt.NDArray[Any]) -> tuple[float, str]:
    """The temperature, or 1, and why."""
    label_N = rows.labels_N1[:, 0].numpy()
    patients = len(set(patient_N.tolist()))
    fewest = min(
        len(set(patient_N[label_N == place].tolist())) for place in range(len(rows.head.labels))
    )
    if patients < FEWEST_PATIENTS or fewest < FEWEST_OF_A_LABEL:
        return 1.0, (
            f"{patients} labelled patients, {fewest} of the rarest label, are too few; "
            f"calibration needs {FEWEST_PATIENTS} and {FEWEST_OF_A_LABEL}"
        )
    temperature, _ = rows.fit()
    for bound in TEMPERATURES:
        if math.isclose(temperature, bound, rel_tol=0.01):
            return 1.0, (
                f"the fit ran into the bound {bound:.2g}: the {patients} labelled patients are "
                "too few or too easy to separate"
            )
    fitted = alone = 0.0
    for _, left_out in GroupKFold(FOLDS).split(label_N, groups=patient_N):
        chosen_N = np.isin(np.arange(len(label_N)), left_out)
        apart, rest = rows.of(chosen_N), rows.of(~chosen_N)
        fitted += len(left_out) / len(label_N) * apart.cross_entropy(rest.fit()[0])
        alone += len(left_out) / len(label_N) * apart.cross_entropy(1.0)
    why = f"cross-validated cross entropy {fitted:.4f}, and {alone:.4f} with 1"
    return (temperature, why) if fitted < alone else (1.0, f"no gain: {why}")
