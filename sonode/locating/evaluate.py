"""How well a locator does on a cohort: IoU, FROC, and what its boxes do to a network's AUC.

Shapes in names: N rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import pandas as pd

from model_def.preprocessing import RoI
from sonode.console import UserError, counted, progress, say
from sonode.files.atomic import check_new, new_folder
from sonode.files.parquet import ROI_COLUMNS
from sonode.locating.detector import Proposal, proposals, read
from sonode.locating.froc import best_iou, measure
from sonode.locating.images import Image, images_of
from sonode.measure_text import number, with_interval
from train.comparing.auc_difference import compare_head
from train.data.leakage import part_to_evaluate
from train.evidence.jitter import rescored
from train.fitting.predictions import Predictions, predict
from train.measures.measure import Json, Resampling

NUMBERS, PROPOSALS = "locate.json", "proposals.parquet"
Part = Literal["val", "test", "all"]


def evaluate(
    locator_folder: Path,
    cohort_folder: Path,
    out: Path,
    *,
    part: Part,
    checkpoint: Path | None,
    how: Resampling,
) -> Json:
    """Write `locate.json` and `proposals.parquet` to OUT, whole or not at all; give the first.

    `part` is of the locator's own split; `all` is for a cohort of other patients. With a
    `checkpoint` the AUC of each of its binary heads on the proposed boxes minus that on the drawn
    ones: of the same rows, those of images where something was found, patients drawn.

    Raises UserError: OUT is in use, no locator, the part is empty, or shows what either learned
    from.
    """
    check_new(out)
    locator = read(locator_folder)
    training = locator.card.training
    trained_on = {**training["cohort"], "split_seed": training["split_seed"]}
    data, name, _ = part_to_evaluate(locator_folder, cohort_folder, part, "locator", trained_on)
    images = images_of(data, name)
    size, limit = locator.card.size, locator.card.min_confidence
    predicted = None
    if checkpoint is not None:  # its faults first: to propose takes minutes
        predicted = predict(checkpoint, cohort_folder, part)
        if missing := set(predicted.frame["image"]) - {image.name for image in images}:
            raise UserError(
                f"CHECKPOINT {checkpoint}: its {part} part has images that are not in the "
                f"locator's ({len(missing)}); train both with the same split_seed"
            )
    found = [
        proposals(locator.detector, image.pixels(), size)
        for image in progress(images, total=len(images), what="proposing")
    ]
    truth = [image.boxes for image in images]
    boxes = {
        image.name: its[0].roi
        for image, its in zip(images, found, strict=True)
        if its and its[0].confidence >= limit
    }
    numbers: Json = {
        "format": 1,
        "part": part,
        "cohort": {"name": data.cohort.name, "sha256": data.cohort.sha256},
        "locator": {"sha256": locator.sha256, "min_confidence": limit, "trained_on": training},
        "patients": len({image.patient for image in images}),
        **measure(truth, found, limit),
        "method": {**vars(how), "confidence": 0.95},
        "auc_proposed_minus_drawn": [],
    }
    if checkpoint is not None and predicted is not None:
        numbers["auc_proposed_minus_drawn"] = _aucs(
            checkpoint, cohort_folder, predicted, boxes, how
        )
    with new_folder(out) as folder:
        text = json.dumps(numbers, indent=1, allow_nan=False, ensure_ascii=False)
        (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")
        _table(images, found).to_parquet(folder / PROPOSALS, index=False)
    return numbers


def _aucs(
    checkpoint: Path,
    cohort_folder: Path,
    predicted: Predictions,
    boxes: Mapping[str, RoI],
    how: Resampling,
) -> list[Json]:
    """One for each binary head, as `sonode versus` gives them; the first is proposed."""
    frame = predicted.frame
    drawn = frame[frame["image"].isin(list(boxes))].reset_index(drop=True)
    if drawn.empty:
        say("nothing was found in any image: no AUC")
        return []
    box_N = [boxes[image] for image in drawn["image"]]
    probability_N = rescored(checkpoint, cohort_folder, drawn, lambda row, *_: box_N[row])
    proposed = drawn.assign(**{f"{name}_probability": its for name, its in probability_N.items()})
    compared = []
    for head in predicted.heads:
        if not head.categorical:
            both = compare_head(head.name, proposed, drawn, None, how)
            compared += [asdict(it) for it in both]
    return compared


def _table(images: list[Image], found: list[list[Proposal]]) -> pd.DataFrame:
    """Each image's surest proposal, whatever its confidence, and its IoU with the drawn box."""
    iou_N = best_iou([image.boxes for image in images], found)
    rows = [
        {
            "image": image.name,
            "patient_id": image.patient,
            **dict(zip(ROI_COLUMNS, its[0].roi if its else (None,) * 4, strict=True)),
            "confidence": its[0].confidence if its else None,
            "iou": iou,
        }
        for image, its, iou in zip(images, found, iou_N.tolist(), strict=True)
    ]
    return pd.DataFrame(rows)


def show(numbers: Json) -> None:
    """Print what was measured."""
    say(
        f"{counted(numbers['images'], 'image')} of {counted(numbers['patients'], 'patient')}, "
        f"{counted(numbers['boxes'], 'box', 'boxes')}; none found in {numbers['none_found']}"
    )
    say(
        f"IoU mean {numbers['iou_mean']:.3f}, median {numbers['iou_median']:.3f}; over 0.5 in "
        f"{numbers['found']:.1%} of images"
    )
    for most, sensitivity in numbers["sensitivity_at_false_positives"].items():
        say(f"  sensitivity {sensitivity:.3f} at {most} false positives an image")
    for its in numbers["auc_proposed_minus_drawn"]:
        difference = with_interval({**its, "value": its["difference"]}, sign=True)
        say(
            f"AUC {its['head']} ({counted(its['n_images'], 'row')}): proposed "
            f"{number(its['first'])}, drawn {number(its['second'])}, difference {difference}"
        )
