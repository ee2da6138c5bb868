"""What a checkpoint says of a cohort, beside the truth: the table that all evidence is made from.

Shapes in names: N images, L logits of all heads, S input side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from model_def import checkpoint, outliers
from model_def.gradcam import grad_cam
from model_def.heads import (
    HeadSpec,
    Hierarchy,
    deciding,
    logit_slices,
    probabilities,
    read,
    spread,
)
from model_def.network import Network, average
from model_def.preprocessing import Pixels, Preprocessing, normalise
from sonode.console import UserError, progress
from sonode.files.parquet import ROI_COLUMNS
from train.cohorts.carried import carried_columns
from train.cohorts.checks import LABELS
from train.cohorts.cohort import Cohort
from train.cohorts.describe import table_one
from train.cohorts.labels import implied, truth_of
from train.data.crops import Crops
from train.data.datamodule import ALL
from train.data.leakage import WHOLE, part_to_evaluate

Part = Literal["val", "test", "all", "external"]
"""`external`: all of a cohort that shares no image or patient with any part of the training's."""
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One row per lesion box, with truth and calibrated probability of every head.

    The truth is the cohort's label, and where that is blank what follows from the parent's; of a
    head without any label there is none.

    Columns of `frame`: patient_id, lesion_id, image, the RoI, the cohort's labels, device, its
    further columns that name no patient (see `carried_columns`); of a binary head NAME_truth
    (nullable boolean) and NAME_probability (float64); of a categorical one NAME_truth (nullable
    text) and NAME_probability_LABEL for each label. Where the card has them, NAME_uncertain,
    NAME_label_set (list of text), out_of_distribution and out_of_distribution_distance; of several
    members NAME_spread (see `model_def.heads.spread`).
    """

    frame: pd.DataFrame
    heads: tuple[HeadSpec, ...]
    hierarchy: Hierarchy
    about: dict[str, Any]
    """Provenance of model and images, as JSON takes it."""
    crops: Sequence[Pixels] = ()
    """What the network looked at, at stored resolution; none where there was no network."""
    characteristics: pd.DataFrame | None = None
    """Table 1 of the whole cohort that the rows are a part of."""
    cams: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Grad-CAM (N, h, w) of each binary head."""
    explained: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The head whose logit each of those explains: see `model_def.heads.deciding`."""


def logits_of(network: Network, crops: Crops, facts: Preprocessing) -> torch.Tensor:
    """Float32 logits (N, L) of a part's crops, without augmentation, in order."""
    return torch.cat([logits_BL for logits_BL, _ in _forward(network, crops, facts)])


def logits_and_features_of(
    network: Network, crops: Crops, facts: Preprocessing
) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
    """As `logits_of`, and the averaged features (N, C) that they come from."""
    logits, features = [], []
    for logits_BL, features_BChw in _forward(network, crops, facts):
        logits.append(logits_BL)
        features.append(average(features_BChw))
    return torch.cat(logits), np.concatenate(features)


def _forward(
    network: Network, crops: Crops, facts: Preprocessing
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield logits (B, L) and features (B, C, h, w) of each batch."""
    network.eval()
    with torch.inference_mode():
        starts = range(0, len(crops), BATCH)
        for start in progress(starts, total=len(starts), what="scoring"):
            stop = min(start + BATCH, len(crops))
            images_BSS = torch.stack([crops.image(index) for index in range(start, stop)])
            images_B3SS = normalise(images_BSS, facts)
            yield network(images_B3SS.contiguous(memory_format=torch.channels_last))


def predict(folder: Path, cohort_folder: Path, part: Part) -> Predictions:
    """Score a part of a cohort, under the split that the checkpoint was trained with.

    `all` and `external` are for a cohort of other patients: the one that was trained on is refused.

    Raises UserError: no checkpoint, a faulty cohort, an empty part, or images that were trained on.
    """
    try:
        network, card = checkpoint.load(folder)
        distance = outliers.load(folder, card.out_of_distribution)
    except ValueError as error:
        raise UserError(f"CHECKPOINT {error}") from error
    trained_on = card.training["cohort"]
    if part not in WHOLE and trained_on.get("fold") == ALL:
        raise UserError(
            f"CHECKPOINT {folder}: was trained on all {trained_on['train']['patients']} patients, "
            "and no part was held out; its figures are those of its folds; give another cohort "
            "with --part all"
        )
    data, name, checked = part_to_evaluate(folder, cohort_folder, part, "checkpoint", trained_on)
    data.setup_for(card.heads, card.preprocessing, may_lack=True)
    rows = np.array(data.indices[name], dtype=int)
    slices = logit_slices(card.heads)
    binary = [head.name for head in card.heads if not head.categorical]
    weight_LC = network.heads.weight.detach()
    logits: list[torch.Tensor] = []
    of_members: list[torch.Tensor] = []
    distances: list[float] = []
    cams: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in binary}
    explained: dict[str, list[str]] = {name: [] for name in binary}
    for logits_BL, features_BChw in _forward(network, data.parts[name], card.preprocessing):
        logits.append(logits_BL)
        if card.members > 1:
            of_members.append(network.member_logits(features_BChw))
        if distance is not None:
            distances += distance.scores(average(features_BChw)).tolist()
        for logits_L, features_Chw in zip(logits_BL, features_BChw, strict=True):
            decides = deciding(logits_L, card.heads, card.hierarchy)
            for head_name, found in cams.items():
                weight_C = weight_LC[slices[decides[head_name]].start]
                found.append(grad_cam(features_Chw, weight_C))
                explained[head_name].append(decides[head_name])
    frame = facts_of(data.cohort, rows)
    labels_NK = data.parts[name].labels_NK
    logits_MNL = torch.cat(of_members, dim=1) if of_members else None
    frame = with_answers(
        frame, labels_NK, torch.cat(logits), card.heads, card.hierarchy, logits_MNL
    )
    figures = card.training.get("figures")
    if (limit := card.out_of_distribution) is not None and distance is not None:
        frame = frame.assign(
            out_of_distribution=[limit.exceeded_by(its) for its in distances],
            out_of_distribution_distance=distances,
        )
    about = {
        "part": part,
        **({} if figures is None else {"statement": figures["statement"]}),
        "cohort": {
            **data.cohort.about,
            "patients": int(frame["patient_id"].nunique()),
            "images": len(frame),
        },
        "trained_on": trained_on,
        "overlap_checked": checked,
        "model": card.model_dump(mode="json", exclude={"training"}),
        "training": {name: fact for name, fact in card.training.items() if name != "cohort"},
    }
    return Predictions(
        frame=frame,
        heads=card.heads,
        hierarchy=card.hierarchy,
        about=about,
        characteristics=table_one(data.cohort),
        crops=data.parts[name].crops,
        cams={name: np.stack(found) for name, found in cams.items()},
        explained=explained,
    )


def with_answers(
    frame: pd.DataFrame,
    labels_NK: torch.Tensor,
    logits_NL: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    logits_MNL: torch.Tensor | None = None,
) -> pd.DataFrame:
    """The rows of `facts_of` with truth, calibrated probability and label set of every head.

    `logits_MNL`: of several members, for their spread. A head without any label here has no truth,
    not even what follows from its parent: a cohort without ALNM would seem to be known as negative.
    """
    truth_NK = implied(labels_NK, heads).numpy()
    truth_NK[:, labels_NK.isnan().all(dim=0).numpy()] = np.nan
    probability_NL = probabilities(logits_NL, heads, hierarchy).numpy()
    slices = logit_slices(heads)
    found: dict[str, Any] = {}
    for k, head in enumerate(heads):
        found[f"{head.name}_truth"] = truth_of(truth_NK[:, k], head.labels)
        own = probability_NL[:, slices[head.name]]
        if head.categorical:
            for place, label in enumerate(head.labels):
                found[f"{head.name}_probability_{label}"] = own[:, place]
        else:
            found[f"{head.name}_probability"] = own[:, 0]
    spreads: list[list[float] | None] = [None] * len(probability_NL)
    if logits_MNL is not None:
        spreads = spread(logits_MNL, heads, hierarchy).tolist()
    scores = [
        read(row, heads, apart) for row, apart in zip(probability_NL.tolist(), spreads, strict=True)
    ]
    for head in heads:
        if logits_MNL is not None:
            found[f"{head.name}_spread"] = [score[head.name].spread for score in scores]
        if head.label_sets is not None and head.label_sets.least is not None:
            of_head = [score[head.name] for score in scores]
            found[f"{head.name}_uncertain"] = [its.uncertain for its in of_head]
            found[f"{head.name}_label_set"] = [list(its.label_set or ()) for its in of_head]
    return frame.assign(**found)


def facts_of(cohort: Cohort, rows: npt.NDArray[Any]) -> pd.DataFrame:
    """What the cohort knows of those rows: the first columns of `Predictions.frame`."""
    columns = ["patient_id", "lesion_id", "image", *ROI_COLUMNS, *LABELS, "device"]
    columns += carried_columns(cohort)
    return cohort.table[columns].iloc[rows].reset_index(drop=True)
