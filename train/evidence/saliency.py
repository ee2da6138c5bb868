"""What heat maps say over a whole part: cases to look at, and how the response falls off.

Shapes in names: N images, h, w of a Grad-CAM, S side of the resampled map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from model_def.heads import HeadSpec
from model_def.overlay import overlay
from train.evidence.plots import Profile
from train.evidence.report import GalleryItem
from train.fitting.predictions import Predictions
from train.statistics.binary import Bools, Floats

CASES = 3  # pictures of each kind
SIDE = 64
RINGS = 14  # from the centre to the corner, at sqrt(2) half sides


def gallery(predictions: Predictions) -> list[GalleryItem]:
    """The most confident cases of each kind, per binary head with labels; one a patient.

    Right and wrong on both sides, and the incoherent ones (a child called positive, its parent
    not). A caption gives probabilities, thresholds and truth; none names a patient or a file.
    """
    items = []
    for head in predictions.heads:
        if head.name in predictions.cams:
            for title, rows in _kinds(predictions, head):
                items += [_item(predictions, head, title, row) for row in rows]
    return items


def highest(
    patient_N: pd.Series, score_N: Floats, chosen_N: Bools, without: Sequence[object] = ()
) -> list[int]:
    """Chosen rows, the highest score first, one a patient, and none of the patients `without`."""
    rows = np.flatnonzero(chosen_N)
    rows = rows[np.argsort(-score_N[rows], kind="stable")]
    patient = patient_N.iloc[rows]
    kept = ~(patient.duplicated() | patient.isin(list(without)))
    return [int(row) for row in rows[kept.to_numpy(bool)]]


def profile(predictions: Predictions) -> dict[str, Profile]:
    """Grad-CAM response over the distance to the crop's centre, per head: mean and SD over images.

    The paper's Supplementary Figure S1. Each map is scaled by its maximum; distances are in half
    sides of the crop, whatever its aspect. Maps without any response are left out.
    """
    centres = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    distance_SS = np.hypot(centres[None], centres[:, None])
    ring_SS = np.minimum((distance_SS / np.sqrt(2) * RINGS).astype(int), RINGS - 1)
    radius = [(ring + 0.5) * np.sqrt(2) / RINGS for ring in range(RINGS)]
    ring_RSS = np.stack([ring_SS == ring for ring in range(RINGS)])
    found: dict[str, Profile] = {}
    for name, cam_Nhw in predictions.cams.items():
        alive_Nhw = cam_Nhw[cam_Nhw.max(axis=(1, 2)) > 0]
        if len(alive_Nhw):
            scaled_Nhw = alive_Nhw / alive_Nhw.max(axis=(1, 2), keepdims=True)
            share_RP = _of_rings(ring_RSS, *alive_Nhw.shape[1:])
            response_NR = scaled_Nhw.reshape(len(scaled_Nhw), -1) @ share_RP.T
            found[name] = Profile(
                radius=radius,
                mean=response_NR.mean(axis=0).tolist(),
                sd=response_NR.std(axis=0, ddof=1).tolist() if len(response_NR) > 1 else None,
                images=len(response_NR),
                cells=alive_Nhw.shape[1:],
            )
    return found


def _of_rings(ring_RSS: npt.NDArray[np.bool_], h: int, w: int) -> npt.NDArray[np.float32]:
    """The share (R, h * w) that each place of a map has in a ring of the resampled map.

    Resampling and the mean of a ring are linear, so that no map needs to be resampled itself.
    """
    unit_P1hw = torch.eye(h * w).reshape(h * w, 1, h, w)
    resized = torch.nn.functional.interpolate(unit_P1hw, (SIDE, SIDE), mode="bilinear")
    share_PSS = resized[:, 0].numpy()
    return np.stack([share_PSS[:, ring_SS].mean(axis=1) for ring_SS in ring_RSS])


def _kinds(predictions: Predictions, head: HeadSpec) -> Iterator[tuple[str, list[int]]]:
    frame = predictions.frame
    p_N = frame[f"{head.name}_probability"].to_numpy()
    truth = frame[f"{head.name}_truth"]
    positive_N = p_N > head.threshold
    is_N = (truth == True).fillna(False).to_numpy(dtype=bool)  # noqa: E712
    is_not_N = (truth == False).fillna(False).to_numpy(dtype=bool)  # noqa: E712
    negative_label, positive_label = head.labels
    sure_N = np.abs(p_N - head.threshold)

    def most_sure(chosen_N: Bools) -> list[int]:
        return highest(frame["patient_id"], sure_N, chosen_N)[:CASES]

    yield f"{head.name}: right, {positive_label}", most_sure(is_N & positive_N)
    yield f"{head.name}: right, {negative_label}", most_sure(is_not_N & ~positive_N)
    yield f"{head.name}: missed, {positive_label}", most_sure(is_N & ~positive_N)
    yield f"{head.name}: false alarm, {negative_label}", most_sure(is_not_N & positive_N)
    parent = next((other for other in predictions.heads if other.name == head.parent), None)
    if parent is not None:
        parent_N = frame[f"{parent.name}_probability"].to_numpy() > parent.threshold
        yield f"{head.name}: inconsistent with {parent.name}", most_sure(positive_N & ~parent_N)


def _item(predictions: Predictions, head: HeadSpec, title: str, row: int) -> GalleryItem:
    facts = predictions.frame.iloc[row]
    texts = []
    for other in predictions.heads:
        if not other.categorical:
            truth = facts[f"{other.name}_truth"]
            known = "unknown" if pd.isna(truth) else other.labels[bool(truth)]
            p, threshold = _on_its_side(facts[f"{other.name}_probability"], other.threshold)
            texts.append(f"{other.name} {p} (threshold {threshold}, truth: {known})")
    explained = predictions.explained.get(head.name)
    if explained and explained[row] != head.name:
        texts.append(f"heat map of {explained[row]}, which decides {head.name}")
    png = overlay(predictions.crops[row], predictions.cams[head.name][row])
    return GalleryItem(title, png, "; ".join(texts))


def _on_its_side(p: float, threshold: float) -> tuple[str, str]:
    """Both with two decimals, or as many as show on which side of the threshold `p` lies."""
    decimals = 2
    while p != threshold and f"{p:.{decimals}f}" == f"{threshold:.{decimals}f}":
        decimals += 1
    return f"{p:.{decimals}f}", f"{threshold:.{decimals}f}"
