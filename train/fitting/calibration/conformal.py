"""Bounds with a guarantee from calibration patients: conformal prediction, one weight a patient.

Sources: label-conditional (Mondrian) sets, Vovk 2012, https://arxiv.org/abs/1209.2673; the least
ambiguous set, whose score is the label's own probability, Sadinle, Lei & Wasserman 2019,
https://arxiv.org/abs/1609.00451; several images a patient, Lee, Barber & Willett 2023,
https://arxiv.org/abs/2306.06342.

Why by label: a set that is right for 90 % of all lesions may be right for 97 % of the benign and
60 % of the malignant ones. A reader needs the promise for each.

Why own code: crepes 0.9.1 has sets by label, but counts images and not patients; MAPIE 1.6.0 has
neither.

Shapes in names: N images, K heads, L logits of all heads, n labels of one head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_def.heads import HeadSpec, Hierarchy, logit_slices
from model_def.label_sets import LabelSets
from sonode.console import say
from train.statistics.binary import Floats

LEVEL = 0.9
"""Ours, where the configuration gives none. It needs 9 patients of each label; 0.95 would need 19,
more than many a cohort has left."""
_ROUNDING = 1e-9  # by which a sum of shares may miss the level


def patients_needed(level: float) -> int:
    """The fewest patients from which a bound can promise `level`."""
    return math.ceil(level / (1 - level) - _ROUNDING)


def bound(score_N: Floats, patient_N: npt.ArrayLike, level: float) -> float | None:
    """The score that an image of a new patient does not exceed in a share of `level`, or more.

    Patients are exchangeable, a patient's images are not: each patient has the same weight, shared
    by the patient's images, and the new patient's is at infinity (Lee, Barber & Willett 2023,
    hierarchical conformal prediction). With one image each it is the usual quantile of split
    conformal prediction, the ceil((n + 1) level)-th score. The promise is for a random image of the
    new patient, on average over calibrations. None where the patients are too few for the level.
    """
    _, place_N, count_P = np.unique(
        np.asarray(patient_N, dtype=str), return_inverse=True, return_counts=True
    )
    if len(count_P) < patients_needed(level):
        return None
    order_N = np.argsort(score_N, kind="stable")
    weight_N = 1 / ((len(count_P) + 1) * count_P[place_N[order_N]])
    first = int(np.searchsorted(weight_N.cumsum(), level - _ROUNDING))
    return float(score_N[order_N[min(first, len(order_N) - 1)]])


def label_sets(
    probability_Nn: Floats,
    label_N: Floats,
    patient_N: npt.ArrayLike,
    labels: Sequence[str],
    *,
    given: str | None,
    level: float,
) -> LabelSets:
    """The bounds of a head from the probability of each of its labels on calibration images.

    `label_N`: the place of each image's label, NaN where it is missing or `given` is not positive;
    such images take no part. Where a label has too few patients the head has no sets: with the
    others' alone a result could be certain of a label that was never ruled out.
    """
    own_N = np.asarray(patient_N, dtype=str)
    least: dict[str, float] = {}
    counts: dict[str, int] = {}
    for place, label in enumerate(labels):
        rows_N = label_N == place
        counts[label] = len(set(own_N[rows_N].tolist()))
        highest = bound(-probability_Nn[rows_N, place], own_N[rows_N], level)
        if highest is not None:
            least[label] = -highest
    facts: dict[str, Any] = {"level": level, "given": given, "patients": counts}
    if len(least) == len(labels):
        return LabelSets(**facts, least=least)
    few = ", ".join(f"{counts[it]} with {it}" for it in labels if it not in least)
    why = (
        f"too few calibration patients: {few}; a level of {level:g} needs {patients_needed(level)}"
    )
    return LabelSets(**facts, least=None, why=why)


def with_label_sets(
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    probability_NL: Floats,
    learned_NK: Floats,
    patient_N: npt.ArrayLike,
    level: float,
) -> tuple[HeadSpec, ...]:
    """The heads with their label sets, calibrated on the images that each one learns from.

    `probability_NL`: as it is reported. `learned_NK`: as of `child_labels`. In a chain a head
    learns from its parent's positives, so the set of ALNM speaks of malignant lesions, although the
    probability that it is made from is that of ALNM in any lesion: of malignant lesions with ALNM,
    a share of `level` have it in their set, and so for those without. Of a benign lesion it
    promises nothing.
    """
    by_name, slices, done = {head.name: head for head in heads}, logit_slices(heads), []
    for k, head in enumerate(heads):
        given = head.given
        if hierarchy == "chain" and head.parent is not None:
            given = by_name[head.parent].target
        own_Nn = probability_NL[:, slices[head.name]]
        both_Nn = own_Nn if head.categorical else np.hstack([1 - own_Nn, own_Nn])
        calibration = (both_Nn, learned_NK[:, k], patient_N)
        found = label_sets(*calibration, head.labels, given=given, level=level)
        if found.why is not None:
            say(f"head {head.name}: no label sets: {found.why}")
        done.append(head.model_copy(update={"label_sets": found}))
    return tuple(done)
