"""RoI jitter: how far scores move when a box is drawn a little elsewhere, or larger.

Each box is moved by 5 and 10 % of its width and height in a direction drawn by chance, and grown by
5 and 10 % about its centre. Shapes in names: N rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from model_def import checkpoint
from model_def.heads import HeadSpec, logit_slices, probabilities
from model_def.preprocessing import Pixels, RoI, crop, widen
from sonode.files.parquet import ROI_COLUMNS
from train.cohorts.images import read_image
from train.data.crops import Crops
from train.fitting.predictions import Predictions, logits_of
from train.measures.measure import Json, Resampling, as_json, why_undefined
from train.measures.sets import sets_of, truth_of_rows
from train.statistics.binary import Floats, roc_auc, share, value
from train.statistics.bootstrap import bootstrap, bootstrap_difference

CHANGES = (("moved", 0.05), ("moved", 0.10), ("grown", 0.05), ("grown", 0.10))


def changed_box(box: RoI, kind: str, amount: float, angle: float, width: int, height: int) -> RoI:
    """The box moved (kept whole inside a frame of that size), or grown (clipped at the frame).

    `amount` is a share of its own width and height, `angle` the direction of a move in radians.
    """
    own_width, own_height = box.x_max - box.x_min, box.y_max - box.y_min
    if kind == "grown":
        return widen(box, amount / 2, width, height)
    x, y = (
        round(amount * own_width * math.cos(angle)),
        round(amount * own_height * math.sin(angle)),
    )
    x, y = max(-box.x_min, min(x, width - box.x_max)), max(-box.y_min, min(y, height - box.y_max))
    return RoI(box.x_min + x, box.y_min + y, box.x_max + x, box.y_max + y)


def rescored(
    folder: Path, cohort_folder: Path, frame: pd.DataFrame, box_of: Callable[[int, int, int], RoI]
) -> dict[str, Floats]:
    """The probability (N,) of each binary head on other boxes of the rows of `predict`.

    `box_of`: the box of a row, by its number and its image's width and height.
    """
    network, card = checkpoint.load(folder)
    crops: list[Pixels] = []
    image, pixels = "", np.empty((0, 0), np.uint8)
    for row, its in enumerate(frame["image"]):
        if its != image:
            image, pixels = its, read_image(cohort_folder / its)
        box = box_of(row, pixels.shape[1], pixels.shape[0])
        crops.append(crop(pixels, box, card.preprocessing).copy())
    scored = Crops(crops, torch.empty((len(frame), 0)), card.preprocessing, None)
    logits_NL = logits_of(network, scored, card.preprocessing)
    probability_NL = probabilities(logits_NL, card.heads, card.hierarchy).numpy()
    slices = logit_slices(card.heads)
    binary = [head.name for head in card.heads if not head.categorical]
    return {name: probability_NL[:, slices[name].start] for name in binary}


def jitter(
    folder: Path, cohort_folder: Path, predictions: Predictions, how: Resampling
) -> list[Json]:
    """Score each row of `predict` with its box changed in each of `CHANGES`; see `of_head`."""
    frame = predictions.frame
    heads = {head.name: head for head in predictions.heads}
    boxes = [RoI(*map(int, its)) for its in frame[[*ROI_COLUMNS]].itertuples(index=False)]
    angle_N = np.random.default_rng(how.seed).uniform(0, 2 * math.pi, len(frame))
    found = []
    for kind, amount in CHANGES:
        unchanged = 0

        def change(
            row: int, width: int, height: int, by: tuple[str, float] = (kind, amount)
        ) -> RoI:
            nonlocal unchanged
            new = changed_box(boxes[row], *by, angle_N[row], width, height)
            unchanged += new == boxes[row]
            return new

        for name, new_N in rescored(folder, cohort_folder, frame, change).items():
            facts = {"kind": kind, "amount": amount, "unchanged_boxes": unchanged}
            found.append({"head": name, **facts, **of_head(heads[name], predictions, new_N, how)})
    return found


def of_head(head: HeadSpec, predictions: Predictions, new_N: Floats, how: Resampling) -> Json:
    """How far the scores of all rows moved, and the AUC on the head's primary set.

    The median and the 95th percentile of absolute differences; the share of rows whose label at the
    served threshold changes; the AUC before and after, and after minus before.
    """
    frame = predictions.frame
    old_N = frame[f"{head.name}_probability"].to_numpy(np.float64)
    patient_N = frame["patient_id"].to_numpy(dtype=object)
    moved_N = np.abs(new_N - old_N)
    other_N = (new_N > head.threshold) != (old_N > head.threshold)
    drawn = bootstrap({"": share}, other_N, new_N, patient_N, **vars(how))[""]
    on, its = next(iter(sets_of(head, predictions.heads, frame).items()))
    chosen_N = its.rows.to_numpy(bool)
    truth_N = truth_of_rows(frame[chosen_N], head)
    sides = new_N[chosen_N], old_N[chosen_N]
    difference = bootstrap_difference(roc_auc, truth_N, *sides, patient_N[chosen_N], **vars(how))
    return {
        "rows": len(frame),
        "median": float(np.median(moved_N)),
        "p95": float(np.quantile(moved_N, 0.95)),
        "changed": {
            "count": int(other_N.sum()),
            **as_json(drawn, "no row", patient_N),
        },
        "on": on,
        "auc_before": value(roc_auc, truth_N, sides[1]),
        "auc_after": value(roc_auc, truth_N, sides[0]),
        "auc_difference": as_json(difference, why_undefined(truth_N) or "undefined"),
    }
