"""Which labels of a head an image may have, with a stated guarantee (conformal prediction).

Training sets the bounds (`train.fitting.calibration.conformal`); serving compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class LabelSets(BaseModel):
    """The bounds of one head and what they promise.

    The promise, for each label: of lesions that have it, and of which `given` is positive, the set
    holds it in a share of at least `level`. So of malignant lesions at most 1 - `level` are called
    benign with certainty, and of benign ones malignant. It is for one image of a new patient of the
    calibration patients' hospital, on average over such calibrations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Annotated[float, Field(gt=0, lt=1)]
    """The share promised."""
    given: str | None
    """What must be positive for the promise to hold, as a `target`; None: it holds for every
    lesion. Of a head in a chain it is the parent: the set of ALNM speaks of malignant lesions."""
    patients: dict[str, int]
    """Calibration patients of each label."""
    least: dict[str, float] | None
    """The probability from which on each label is in the set; None where there are no sets."""
    why: str | None = None
    """Why there are none."""

    def holds(self, probability: Mapping[str, float]) -> tuple[str, ...] | None:
        """The set, from the reported probability of every label; None where there are no sets.

        Where no label reaches its bound, all are in: that keeps the promise, and a reader learns
        the same from both, that the image does not decide.
        """
        if self.least is None:
            return None
        least = self.least
        reached = tuple(label for label, its in probability.items() if its >= least[label])
        return reached or tuple(probability)
