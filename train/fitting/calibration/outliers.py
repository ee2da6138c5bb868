"""The out-of-distribution flag: a distance from training images, its limit from other patients.

Why own code: the Mahalanobis distance of pytorch-ood 0.4.0 inverts the covariance of all features,
here often more than there are images, with a ridge of 1e-6; this one has a variance for the rest.

Shapes in names: N images, C features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model_def.outliers import Distance, Floats, OutlierLimit, of_length_one
from sonode.console import counted
from train.fitting.calibration.conformal import bound, patients_needed

FALSE_ALARMS = 0.05
"""Ours, where the configuration gives none. It needs 19 calibration patients; 0.01 would need 99.
"""
AXES = 32
"""Ours. Of 16, 32 and 64, 32 flagged the most of what is no breast ultrasound, by two networks that
were trained on BUSI, in sum."""


def fit(features_NC: Floats) -> Distance:
    """The distance from training images, by their averaged features."""
    unit_NC = of_length_one(features_NC).astype(np.float64)
    mean_C = unit_NC.mean(axis=0)
    off_NC = unit_NC - mean_C
    _, size_n, axes_nC = np.linalg.svd(off_NC, full_matrices=False)
    axes = min(AXES, len(features_NC) // 2)
    variance_n = np.square(size_n) / len(features_NC)
    rest = variance_n[axes:].sum() / (features_NC.shape[1] - axes)
    return Distance(
        mean_C=mean_C.astype(np.float32),
        axes_rC=np.ascontiguousarray(axes_nC[:axes], np.float32),
        variance_r=variance_n[:axes].astype(np.float32),
        rest=float(rest),
    )


def flag(
    training: Callable[[], Floats],
    features_NC: Floats,
    patient_N: npt.ArrayLike,
    false_alarms: float,
) -> tuple[Distance | None, OutlierLimit]:
    """The distance, and the score that at most a share `false_alarms` of new images exceeds.

    `training`: gives the features of training images; asked only where patients suffice.
    `features_NC`: of calibration images, which the network did not learn from (see
    `conformal.bound` for how a patient with several images counts).
    """
    if (limit := _too_few(patient_N, false_alarms)) is not None:
        return None, limit
    distance = fit(training())
    return distance, limit_of(distance.scores(features_NC), patient_N, false_alarms)


def limit_of(
    score_N: npt.NDArray[np.float64], patient_N: npt.ArrayLike, false_alarms: float
) -> OutlierLimit:
    """The limit from the scores of calibration images, of one network or of a network a fold."""
    if (limit := _too_few(patient_N, false_alarms)) is not None:
        return limit
    found = bound(score_N, patient_N, 1 - false_alarms)
    return OutlierLimit(false_alarms=false_alarms, patients=_count(patient_N), limit=found)


def _too_few(patient_N: npt.ArrayLike, false_alarms: float) -> OutlierLimit | None:
    patients, needed = _count(patient_N), patients_needed(1 - false_alarms)
    if patients >= needed:
        return None
    why = f"too few: {counted(patients, 'calibration patient')}; {false_alarms:g} needs {needed}"
    return OutlierLimit(false_alarms=false_alarms, patients=patients, limit=None, why=why)


def _count(patient_N: npt.ArrayLike) -> int:
    return len(set(np.asarray(patient_N, dtype=str).tolist()))
