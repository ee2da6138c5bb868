"""How well proposed boxes meet the drawn ones: IoU, FROC, and the confidence to ask for.

A lesion is found by a proposal whose IoU with its box is over 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import box_iou

from model_def.preprocessing import RoI
from sonode.locating.detector import Proposal

FOUND_OVER = 0.5
FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0)
"""Of an image, at which FROC gives the sensitivity."""

Floats = npt.NDArray[np.float64]


def overlaps(truth: Sequence[RoI], found: Sequence[Proposal]) -> Floats:
    """IoU (proposals, boxes), in whole pixels."""
    if not found:
        return np.empty((0, len(truth)))
    first, second = (
        torch.tensor([tuple(it) for it in its], dtype=torch.float64)
        for its in ([one.roi for one in found], truth)
    )
    iou: Floats = box_iou(first, second).numpy()
    return iou


def best_iou(truth: Sequence[Sequence[RoI]], found: Sequence[Sequence[Proposal]]) -> Floats:
    """Of each image, the IoU of its surest proposal with the box that it meets best; 0 for none."""
    pairs = zip(truth, found, strict=True)
    return np.array([overlaps(t, f[:1]).max(initial=0.0) for t, f in pairs])


def threshold(truth: Sequence[Sequence[RoI]], found: Sequence[Sequence[Proposal]]) -> float:
    """The confidence to ask of an image's surest proposal so that most images are right.

    That is: their proposal finds a lesion and is kept, or finds none and is dropped. Of several
    such confidences the lowest, and never one that no image reaches.
    """
    iou_N = best_iou(truth, found)
    confidence_N = np.array([its[0].confidence if its else 0.0 for its in found])
    candidates = np.unique(confidence_N)
    right = [((iou_N > FOUND_OVER) == (confidence_N >= limit)).sum() for limit in candidates]
    return float(candidates[int(np.argmax(right))])


def froc(truth: Sequence[Sequence[RoI]], found: Sequence[Sequence[Proposal]]) -> dict[str, float]:
    """Sensitivity (of lesions) at each of `FALSE_POSITIVES` an image, the confidence falling.

    A proposal is a false positive if it finds no lesion; a second one of a lesion counts as
    neither. It is the greatest sensitivity whose false positives do not exceed the number.
    """
    events: list[tuple[float, int, int]] = []  # confidence, lesions newly found, false positives
    for boxes, its in zip(truth, found, strict=True):
        met_PB = overlaps(boxes, its) > FOUND_OVER
        known = np.zeros(len(boxes), bool)
        for proposal, met_B in zip(its, met_PB, strict=True):
            events.append((proposal.confidence, int((met_B & ~known).sum()), int(not met_B.any())))
            known |= met_B
    events.sort(key=lambda it: -it[0])
    lesions, images = sum(map(len, truth)), len(truth)
    hit, false = (np.cumsum([0, *(it[place] for it in events)]) for place in (1, 2))
    # Equal confidences come together: only the last of them is a point of the curve.
    ends = np.flatnonzero(np.diff([2.0, *(it[0] for it in events), -1.0]))
    hit, false = hit[ends], false[ends]
    return {
        f"{most:g}": float(hit[false <= most * images].max() / lesions) for most in FALSE_POSITIVES
    }


def measure(
    truth: Sequence[Sequence[RoI]], found: Sequence[Sequence[Proposal]], min_confidence: float
) -> dict[str, Any]:
    """What the card and the evidence say of proposals of images that all have drawn boxes.

    IoU is of each image's surest proposal, 0 where nothing is found.
    """
    kept = [its if its and its[0].confidence >= min_confidence else [] for its in found]
    iou_N = best_iou(truth, kept)
    return {
        "images": len(truth),
        "boxes": sum(map(len, truth)),
        "none_found": sum(not its for its in kept),
        "iou_mean": float(iou_N.mean()),
        "iou_median": float(np.median(iou_N)),
        "found": float((iou_N > FOUND_OVER).mean()),
        "sensitivity_at_false_positives": froc(truth, found),
    }
