"""Whether an image is like those that the network learned from, by the network's own features.

The score is the squared Mahalanobis distance of the averaged features, scaled to length one
(Mahalanobis++, Mueller & Hein 2025, https://arxiv.org/abs/2505.18032), from the training images',
under a covariance of a few main axes and one variance for all the rest (probabilistic PCA, Tipping
& Bishop 1999, https://doi.org/10.1111/1467-9868.00196). So it has the distance within the axes
(Lee et al. 2018, https://arxiv.org/abs/1807.03888) and the part outside them, which finds what no
training image has (ViM, Wang et al. 2022, https://arxiv.org/abs/2203.10807). Only sums over
training images are kept, none of their features: an archive shows no patient.

Shapes in names: B rows, C features, r axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

FILE = "outliers.safetensors"  # beside the weights, and in the archive

Floats = npt.NDArray[np.float32]


class OutlierLimit(BaseModel):
    """The score above which an image is flagged, and what that promises."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    false_alarms: Annotated[float, Field(gt=0, lt=1)]
    """Of images of new patients of the calibration patients' hospital, at most this share is
    flagged, on average over such calibrations."""
    patients: int
    """Calibration patients."""
    limit: float | None
    """None where nothing is flagged."""
    why: str | None = None
    """Why there is no limit."""

    def exceeded_by(self, distance: float) -> bool:
        """Whether an image of that score is flagged."""
        return self.limit is not None and distance > self.limit


def of_length_one(features_BC: Floats) -> Floats:
    """Features without their length, which differs among images of one kind more than their
    direction does; features that are all 0 stay so.
    """
    length_B1 = np.linalg.norm(features_BC, axis=1, keepdims=True)
    found: Floats = features_BC / np.maximum(length_B1, np.finfo(np.float32).tiny)
    return found


@dataclass(frozen=True, kw_only=True)
class Distance:
    """The mean, the axes and the variances of the training images' features of length one."""

    mean_C: Floats
    axes_rC: Floats
    """Orthonormal."""
    variance_r: Floats
    rest: float
    """The variance along every other direction."""

    def scores(self, features_BC: Floats) -> npt.NDArray[np.float64]:
        """Score averaged features (B,): 1 on average for training images, more for others.

        Of several members, whose features lie one after the other, the first one's count: so the
        distance costs what it costs with one, and the limit comes from first members, too.
        """
        features_BC = features_BC[:, : len(self.mean_C)]
        off_BC = of_length_one(features_BC) - self.mean_C
        along_Br = off_BC @ self.axes_rC.T
        beside_B = np.square(off_BC).sum(axis=1) - np.square(along_Br).sum(axis=1)
        within_B = (np.square(along_Br) / self.variance_r).sum(axis=1)
        scores_B: npt.NDArray[np.float64] = (within_B + beside_B / self.rest).astype(np.float64)
        return scores_B / len(self.mean_C)

    def content(self) -> bytes:
        """The content of `FILE`."""
        rest = np.array(self.rest, np.float32)
        return save({**vars(self), "rest": rest})


def load(folder: Path, limit: OutlierLimit | None) -> Distance | None:
    """The distance that goes with a card's limit; None where it has none.

    Raises ValueError: `FILE` is absent or damaged.
    """
    if limit is None or limit.limit is None:
        return None
    try:
        arrays = load_file(folder / FILE)
        return Distance(
            mean_C=arrays["mean_C"],
            axes_rC=arrays["axes_rC"],
            variance_r=arrays["variance_r"],
            rest=float(arrays["rest"]),
        )
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(
            f"{FILE}: absent or damaged; train or copy the checkpoint again"
        ) from error
