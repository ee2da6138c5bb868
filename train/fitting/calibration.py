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
from torch.nn.functional import log_softmax, logsigmoid, one_hot

from model_def.heads import HeadSpec, Hierarchy, logit_slices, probabilities, read
from sonode.console import say
from train.cohorts.labels import ParentNegative, child_labels
from train.fitting.conformal import with_label_sets
from train.fitting.losses import chain_likelihood
from train.statistics.binary import choose_threshold

RULES = ("youden", "sensitivity_0.90")  # in every card; another sensitivity is, where it is served
OPERATING_POINT = r"^(0\.5|youden|sensitivity_0\.\d*[1-9]\d*)$"
"""Which threshold is served: `sensitivity_0.95` is the highest that has it on validation."""
TEMPERATURES = (0.05, 20.0)
"""Ours; where the fit ends there, labels are separable at 0 (or fall with the score), and no finite
temperature is best. It is wide because a network of few steps has small logits: the moving average
of its weights still holds those that it began with (BUSI, 150 steps: .27 is best on its test part).
"""
SCORE_BINS = 20
FEWEST_PATIENTS, FEWEST_OF_A_LABEL = 30, 5
"""Labelled validation patients, of all labels and of each, to fit a temperature from (ours).

Simulated with right logits of SD 1.5, 400 draws each: by how much the cross entropy is above that
of the right temperature, if 1 is kept, if the temperature is fitted to plain labels wherever that
gains by cross-validation (as in earlier versions), and as it is here:

    right: .35                 1                    1.5
    30 patients  .060 .036 .013    0 .013 .014    .021 .024 .012
    60           .060 .014 .007    0 .005 .007    .021 .014 .007
    120          .060 .005 .004    0 .002 .004    .021 .008 .004
"""


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

    So that a few patients cannot make a network too sure, a temperature is fitted to smoothed
    labels (Platt 1999, "Probabilistic outputs for support vector machines", section 2.2): where n
    patients have a label, one of K, it counts (n + 1) / (n + K), and each other one 1 / (n + K).
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
    target_Nl: torch.Tensor
    """The share of each label: 1 of the row's own, or less where they are smoothed."""
    least_Nn: torch.Tensor
    """What its children report, which a max-constrained parent reports at least."""
    known_N: torch.Tensor
    """Which of all rows they are."""

    def smoothed(self, patients: Sequence[int]) -> _Rows:
        """With the labels' posterior means under a uniform prior (Platt 1999), see `calibrate`.

        `patients`: how many have each label.
        """
        own_L = torch.tensor(patients, dtype=torch.float64)
        count = len(patients)
        own_LL = (torch.ones(count, count) + torch.diag(own_L)) / (own_L + count)[:, None]
        return self._replace(target_Nl=self.target_Nl @ own_LL)

    def cross_entropy(self, temperature: float) -> float:
        """The mean over the rows."""
        scaled_Nn = torch.maximum(self.logits_Nn.double() / temperature, self.least_Nn)
        log_Nl = (
            log_softmax(scaled_Nn, dim=1)
            if self.head.categorical
            else logsigmoid(torch.cat([-scaled_Nn, scaled_Nn], dim=1))
        )
        return float(-(self.target_Nl * log_Nl).sum() / max(1, len(log_Nl)))

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
        target_Nl = one_hot(learned_NK[known_N, k].long(), len(head.labels)).double()
        rows = _Rows(head, logits_NL[known_N, own], target_Nl, least_NL[known_N, own], known_N)
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
    patients = len(set(patient_N.tolist()))
    of_label = [len(set(patient_N[its == 1].tolist())) for its in rows.target_Nl.numpy().T]
    if patients < FEWEST_PATIENTS or min(of_label) < FEWEST_OF_A_LABEL:
        return 1.0, (
            f"{patients} labelled patients, {min(of_label)} of the rarest label, are too few; "
            f"calibration needs {FEWEST_PATIENTS} and {FEWEST_OF_A_LABEL}"
        )
    plain, _ = rows.fit()
    for bound, what in zip(
        TEMPERATURES, ("separate the labels", "fall with the label"), strict=True
    ):
        if math.isclose(plain, bound, rel_tol=0.01):
            return 1.0, (
                f"the fit ran into the bound {bound:g}: the scores of the {patients} labelled "
                f"patients {what}"
            )
    temperature, _ = rows.smoothed(of_label).fit()
    return temperature, (
        f"cross entropy {rows.cross_entropy(temperature):.4f}, and {rows.cross_entropy(1):.4f} "
        "with 1"
    )
