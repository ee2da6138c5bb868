"""A cohort's boxes -> a locator.

Shapes in names: h, w of an image whose longest side is the detector's.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.models.detection import FCOS
from torchvision.transforms import v2

from model_def.network import Network
from model_def.preprocessing import Preprocessing
from sonode.console import UserError, say
from sonode.files.atomic import check_new, new_folder
from sonode.locating import detector as detectors
from sonode.locating.froc import measure, threshold
from sonode.locating.images import Image, images_of
from train.data.datamodule import CohortData
from train.data.leakage import IMAGES
from train.data.leakage import images_of as seen_images
from train.fitting.pretrained import load_trunk

BATCH = 8
_LEARNING_RATE = 1e-3
_MAX_NORM = 5.0  # of the gradient: the first steps of a detector are wild

Sample = tuple[tv_tensors.Image, tv_tensors.BoundingBoxes]


class Recipe(NamedTuple):
    """How a locator is trained."""

    size: int
    epochs: int
    weights: str
    """`none`, `imagenet`, or a file: as `model.weights` of a training."""
    seed: int


def fit(cohort_folder: Path, out: Path, recipe: Recipe, *, split_seed: int) -> detectors.Card:
    """Train on the training part; choose `min_confidence`, and measure, on the validation part.

    OUT has its name only when it is whole.

    Raises UserError: OUT is in use, the cohort has faults (a row without a box is one), a part of
    the split is empty, or the weights cannot be had.
    """
    check_new(out)
    data = CohortData(cohort_folder, split_seed=split_seed)
    parts = {part: images_of(data, part) for part in ("train", "val")}
    for part, images in parts.items():
        if not images:
            raise UserError(
                f"COHORT {cohort_folder}: no patient falls into the {part} part of the split "
                f"({data.divided_by}); divide it otherwise, or give a larger cohort"
            )
    torch.manual_seed(recipe.seed)
    detector = detectors.build(recipe.size)
    known_as = _start_from(detector, recipe.weights)
    _train(detector, parts["train"], recipe)
    found = [detectors.proposals(detector, image.pixels(), recipe.size) for image in parts["val"]]
    truth = [image.boxes for image in parts["val"]]
    min_confidence = threshold(truth, found)
    card = detectors.Card(
        size=recipe.size,
        min_confidence=min_confidence,
        training={
            **recipe._asdict(),
            "weights": known_as,
            "split_seed": split_seed,
            "cohort": {
                **data.cohort.about,
                **{part: _counts(images) for part, images in parts.items()},
            },
            "versions": {it: importlib.metadata.version(it) for it in ("sonode", "torchvision")},
        },
        measured=measure(truth, found, min_confidence),
    )
    data.indices = {part: data.rows_of(part) for part in ("train", "val", "test")}
    with new_folder(out) as folder:
        detectors.write(folder, detector, card)
        (folder / IMAGES).write_bytes(seen_images(data))
    return card


def _counts(images: Sequence[Image]) -> dict[str, int]:
    return {
        "patients": len({image.patient for image in images}),
        "images": len(images),
        "boxes": sum(len(image.boxes) for image in images),
    }


def _start_from(detector: FCOS, weights: str) -> str:
    """Fill the trunk; give what the card says of it. Its maps are those before the last layers."""
    whole = Network(detectors.ARCHITECTURE, 1)
    facts = Preprocessing(mean=detectors.MEAN, std=detectors.STD)
    known_as = load_trunk(whole, detectors.ARCHITECTURE, weights, facts)
    if weights != "none":
        trunk = detector.backbone.trunk
        missing = trunk.load_state_dict(whole.trunk.state_dict(), strict=False).missing_keys
        assert not missing
    return known_as


def _train(detector: FCOS, images: Sequence[Image], recipe: Recipe) -> None:
    samples = [_sample(image, recipe.size) for image in images]
    # Zooming out shows what cropped cohorts lack: a lesion that is small in its frame.
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomZoomOut(side_range=(1.0, 2.0), p=0.5),
            v2.ColorJitter(brightness=0.3, contrast=0.3),
            v2.Resize(None, max_size=recipe.size, antialias=True),
        ]
    )
    optimiser = torch.optim.AdamW(detector.parameters(), _LEARNING_RATE, weight_decay=0.01)
    steps = recipe.epochs * -(-len(samples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, steps)
    detector.train()
    for epoch in range(1, recipe.epochs + 1):
        losses = []
        order = torch.randperm(len(samples)).tolist()
        for start in range(0, len(order), BATCH):
            batch = [augment(*samples[index]) for index in order[start : start + BATCH]]
            pixels = [detectors.network_input(image) for image, _ in batch]
            targets = [
                {
                    "boxes": boxes.as_subclass(torch.Tensor),
                    "labels": torch.zeros(len(boxes), dtype=torch.int64),
                }
                for _, boxes in batch
            ]
            loss = sum(detector(pixels, targets).values())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(detector.parameters(), _MAX_NORM)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        say(f"epoch {epoch}/{recipe.epochs}: loss {np.mean(losses):.3f}")
    detector.eval()


def _sample(image: Image, size: int) -> Sample:
    frame_HW = image.pixels()
    small_1hw = detectors.shrunk(frame_HW, size)
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([tuple(box) for box in image.boxes], dtype=torch.float32),
        format="XYXY",
        canvas_size=frame_HW.shape,
    )
    scaled = v2.functional.resize(boxes, list(small_1hw.shape[1:]))
    return tv_tensors.Image(small_1hw), scaled
