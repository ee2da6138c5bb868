"""The temperature of each head (Guo et al. 2017), and the loss that the best ones leave.

Shapes in names: N images, K heads, L logits of all heads; n images of one head and l its labels.
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

from model_def.heads import HeadSpec, Hierarchy, logit_slices
from sonode.console import counted
from train.cohorts.labels import ParentNegative, child_labels
from train.fitting.losses import chain_likelihood

TEMPERATURES = (0.01, 20.0)
"""In units of the logits' root mean square (ours): a network of few steps has small logits, which
its temperature must be able to undo. At the upper one every probability is near 1/2.
"""
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
    found = fits(logits_NL, learned_NK, heads, hierarchy, patient_N)
    if hierarchy == "chain":
        scaled_NL = logits_NL.to(torch.float64, copy=True)
        for name, own in logit_slices(heads).items():
            scaled_NL[:, own] /= found[name].best.temperature
        return float(chain_likelihood(scaled_NL, labels_NK, heads))
    return sum(fit.best.loss for fit in found.values())


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


class Fit(NamedTuple):
    """How one head came by its temperature."""

    rows: _Rows
    best: _Best
    temperature: float
    """The one that is served."""
    why: str

    def account(self) -> dict[str, Any]:
        """See `Calibrated` of `calibrate`."""
        images, patients = len(self.rows.patient_N), len(set(self.rows.patient_N))
        facts = {"temperature": self.temperature, "images": images, "patients": patients}
        return {**facts, "why": self.why}


def fits(
    logits_NL: torch.Tensor,
    learned_NK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    patients: Sequence[str],
) -> dict[str, Fit]:
    """The fit of each head, children first.

    A max-constrained parent reports no less than they do, and its temperature is the best for what
    it reports.
    """
    slices, whose_N = logit_slices(heads), np.asarray(patients)
    found: dict[str, Fit] = {}
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
        found[head.name] = fit = Fit(rows, best, *rows.served(best))
        if hierarchy == "max_constraint" and head.parent is not None and not head.categorical:
            above = slices[head.parent]
            scaled_N1 = logits_NL[:, own].double() / fit.temperature
            reported_N1 = torch.maximum(scaled_N1, least_NL[:, own])
            least_NL[:, above] = torch.maximum(least_NL[:, above], reported_N1)
    return {head.name: found[head.name] for head in heads}
