"""Temperature, operating points and label sets of each head, from the validation part.

Shapes in names: N images, K heads, L logits of all heads, n logits of one head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import log_softmax, logsigmoid, one_hot

from model_def.heads import HeadSpec, Hierarchy, logit_slices, probabilities, read
from sonode.console import UserError, counted, say
from train.cohorts.labels import ParentNegative, child_labels
from train.fitting.conformal import with_label_sets
from train.fitting.losses import chain_likelihood
from train.statistics.binary import choose_threshold

RULES = ("youden", "sensitivity_0.90")  # in every card; another sensitivity is, where it is served
OPERATING_POINT = r"^(0\.5|youden|sensitivity_0\.\d*[1-9]\d*)$"
"""Which threshold is served: `sensitivity_0.95` is the highest that has it on validation."""
TEMPERATURES = (0.01, 20.0)
"""In units of the logits' root mean square (ours): a network of few steps has small logits, which
its temperature must be able to undo. At the upper one every probability is near 1/2.
"""
SCORE_BINS = 20
FEWEST_PATIENTS, FEWEST_OF_A_LABEL = 30, 5
"""Labelled validation patients, of all labels and of each, to fit a temperature from (ours).

Simulated, 400 draws each, right logits of SD 1.5, 4 and 6: by how much the mean cross entropy is
above that of the right temperature, whatever that is (and with the smoothing of Platt 1999):

    30 patients    .017 (.013)    .011 (.030)    .011 (.051)
    40             .013 (.010)    .010 (.021)    .010 (.038)
    60             .010 (.009)    .007 (.013)    .006 (.024)
    200            .002 (.002)    .002 (.003)    .003 (.005)

Where 1 is kept it is .129, .276 and .301 if .1 is right, .033, .047 and .041 if .5 is, 0 if 1 is,
and .071, .063 and .049 if 2 is.
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
    fits = _fits(logits_NL, learned_NK, heads, hierarchy, patient_N)
    account = {name: fit.account() for name, fit in fits.items()}
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
    patient_N: Sequence[str],
) -> float:
    """The loss that the best temperatures leave, NaN of logits that are not finite.

    It chooses the epoch, by what a network can tell apart: overconfidence that a temperature can
    remove is not punished, though with few patients 1 is served. The temperatures fit smoothed
    labels, see `calibrate`, so that separable ones leave a loss. Of a chain it is its likelihood by
    image, as in training; else the sum over heads of the mean cross entropy by patient on what each
    learns from.
    """
    if not logits_NL.isfinite().all():
        return math.nan
    learned_NK = child_labels(labels_NK, heads, hierarchy, parent_negative)
    fits = _fits(logits_NL, learned_NK, heads, hierarchy, patient_N)
    if hierarchy == "chain":
        scaled_NL = logits_NL.to(torch.float64, copy=True)
        for name, own in logit_slices(heads).items():
            scaled_NL[:, own] /= fits[name].best.temperature
        return float(chain_likelihood(scaled_NL, labels_NK, heads))
    return sum(fit.best.loss for fit in fits.values())


class _Best(NamedTuple):
    temperature: float
    loss: float
    why_not: str | None
    """Why it is not to be served, whatever the number of patients."""


class _Rows(NamedTuple):
    """What one head's temperature is fitted on: n rows that have its label, of several patients."""

    head: HeadSpec
    logits_Nn: torch.Tensor
    target_Nl: torch.Tensor
    """The share of each label: 1 of the row's own, or less where they are smoothed."""
    least_Nn: torch.Tensor
    """What its children report, which a max-constrained parent reports at least."""
    patient_N: npt.NDArray[Any]
    weight_N: torch.Tensor
    """Of their sum 1 each patient has the same share."""

    def smoothed(self) -> _Rows:
        """With one patient of unknown label added, see `calibrate`."""
        patients, labels = len(set(self.patient_N)), self.target_Nl.shape[1]
        return self._replace(target_Nl=(patients * self.target_Nl + 1 / labels) / (patients + 1))

    def cross_entropy(self, temperature: float) -> float:
        """The mean over patients of the mean over a patient's rows; 0 without rows."""
        scaled_Nn = torch.maximum(self.logits_Nn.double() / temperature, self.least_Nn)
        log_Nl = (
            log_softmax(scaled_Nn, dim=1)
            if self.head.categorical
            else logsigmoid(torch.cat([-scaled_Nn, scaled_Nn], dim=1))
        )
        return float(-(self.weight_N @ (self.target_Nl * log_Nl)).sum())

    def served(self, best: _Best) -> tuple[float, str]:
        """The temperature to serve and why it is that, see `calibrate`."""
        patients = len(set(self.patient_N))
        fewest = min(len(set(self.patient_N[its == 1])) for its in self.target_Nl.numpy().T)
        if patients < FEWEST_PATIENTS or fewest < FEWEST_OF_A_LABEL:
            return 1.0, (
                f"{counted(patients, 'labelled patient')}, {fewest} of the rarest label: too few; "
                f"calibration needs {FEWEST_PATIENTS} and {FEWEST_OF_A_LABEL}"
            )
        if best.why_not:
            return 1.0, best.why_not
        return best.temperature, (
            f"cross entropy of smoothed labels {best.loss:.4f}, and "
            f"{self.smoothed().cross_entropy(1):.4f} with 1"
        )

    def best(self) -> _Best:
        """The temperature of the least cross entropy of smoothed labels, from any patients."""
        rows, logits_Nn = self.smoothed(), self.logits_Nn.double()
        if self.head.categorical:
            logits_Nn = logits_Nn - logits_Nn.mean(dim=1, keepdim=True)
        size = float(logits_Nn.square().mean().sqrt())
        if not size > 0:  # NaN without rows
            return _Best(1.0, rows.cross_entropy(1), "all logits are the same")
        low, high = (size * bound for bound in TEMPERATURES)
        found = minimize_scalar(
            lambda log: rows.cross_entropy(math.exp(log)),
            bounds=(math.log(low), math.log(high)),
            method="bounded",
        )
        why_not = None
        if found.fun >= min(rows.cross_entropy(low), rows.cross_entropy(high)):
            why_not = (
                f"the cross entropy has no minimum between temperatures {low:.3g} and {high:.3g}, "
                "as where logits are shifted or fall with the label"
            )
        return _Best(math.exp(found.x), float(found.fun), why_not)


class _Fit(NamedTuple):
    rows: _Rows
    best: _Best
    temperature: float
    """The one that is served."""
    why: str

    def account(self) -> dict[str, Any]:
        """See `Calibrated`."""
        images, patients = len(self.rows.patient_N), len(set(self.rows.patient_N))
        facts = {"temperature": self.temperature, "images": images, "patients": patients}
        return {**facts, "why": self.why}


def _fits(
    logits_NL: torch.Tensor,
    learned_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    patients: Sequence[str],
) -> dict[str, _Fit]:
    """The fit of each head, children first.

    A max-constrained parent reports no less than they do, and its temperature is the best for what
    it reports.
    """
    slices, whose_N = logit_slices(heads), np.asarray(patients)
    found: dict[str, _Fit] = {}
    least_NL = torch.full_like(logits_NL, -torch.inf, dtype=torch.float64)
    for k, head in reversed(list(enumerate(heads))):
        own, known_N = slices[head.name], ~learned_NK[:, k].isnan()
        target_Nl = one_hot(learned_NK[known_N, k].long(), len(head.labels)).double()
        some = logits_NL[known_N, own], target_Nl, least_NL[known_N, own]
        patient_N = whose_N[known_N.numpy()]
        _, code_N, rows_each = np.unique(patient_N, return_inverse=True, return_counts=True)
        weight_N = torch.from_numpy(1 / rows_each[code_N] / max(1, len(rows_each)))
        rows = _Rows(head, *some, patient_N, weight_N)
        best = rows.best()
        found[head.name] = fit = _Fit(rows, best, *rows.served(best))
        if hierarchy == "max_constraint" and head.parent is not None and not head.categorical:
            above = slices[head.parent]
            scaled_N1 = logits_NL[:, own].double() / fit.temperature
            reported_N1 = torch.maximum(scaled_N1, least_NL[:, own])
            least_NL[:, above] = torch.maximum(least_NL[:, above], reported_N1)
    return {head.name: found[head.name] for head in heads}
