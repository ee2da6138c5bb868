"""The checkpoint that is packed: the kept epoch's weights, calibrated, with their model card."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import lightning
import pyarrow as pa
import torch

from model_def import checkpoint, outliers
from model_def.network import RESNETS
from model_def.outliers import Floats
from sonode.console import say
from train.cohorts.mixed import shares
from train.data.datamodule import CohortData
from train.data.leakage import IMAGES, images_of
from train.fitting.calibration.outliers import fit, flag
from train.fitting.pooled import HELD_OUT, calibrated, held_out_bytes, read_pooled
from train.fitting.predictions import logits_and_features_of
from train.fitting.task import MultiTask


def export(
    kept_path: str,
    model: MultiTask,
    data: CohortData,
    trainer: lightning.Trainer,
    seed: int,
    seen_before: pa.Table | None,
    folder: Path,
    *,
    keep: str,
    pooled: Path | None = None,
) -> int:
    """Write the checkpoint of Lightning's one at `kept_path`; returns its epoch, from 0.

    `seed`: that of the training. `seen_before`: the images that the weights it began with had seen.
    `keep`: by which rule the epoch was chosen. `pooled`: of `train.fitting.pooled`, where no
    patient was held out. A fold's checkpoint has what it says of the fold beside it, see
    `HELD_OUT`.

    Raises UserError: `pooled` is of other heads.
    """
    best = torch.load(kept_path, weights_only=True, map_location="cpu")
    prefix = "network."
    state = best["state_dict"].items()
    model.network.load_state_dict({name.removeprefix(prefix): value for name, value in state})
    network, facts = model.network.cpu(), model.preprocessing

    def training() -> Floats:
        return logits_and_features_of(network, data.parts["train"], facts)[1]

    beside = {IMAGES: images_of(data, seen_before)}
    distance = None
    if pooled is not None:
        found = read_pooled(pooled, [head.name for head in model.heads])
        if found.out_of_distribution.limit is not None:
            distance = fit(training())
    else:
        aside, rows = data.parts["val"], data.indices["val"]
        logits_NL, features_NC = logits_and_features_of(network, aside, facts)
        patients = data.cohort.table["patient_id"].iloc[rows].tolist()
        distance, limit = flag(training, features_NC, patients, model.false_alarms)
        found = calibrated(model, data, logits_NL, aside.labels_NK, rows, limit)
        if data.fold is not None:
            scores_N = (distance or fit(training())).scores(features_NC)
            beside[HELD_OUT] = held_out_bytes(rows, logits_NL, scores_N)
    if found.out_of_distribution.why is not None:
        say(f"no out-of-distribution flag: {found.out_of_distribution.why}")
    if distance is not None:
        beside[outliers.FILE] = distance.content()
    epoch = int(best["epoch"])
    card = checkpoint.ModelCard(
        architecture=model.architecture,
        heads=found.heads,
        hierarchy=model.hierarchy,
        preprocessing=model.preprocessing,
        out_of_distribution=found.out_of_distribution,
        training={
            **provenance(model, data, trainer, seed, epoch),
            "keep": keep,
            "temperatures": found.temperatures,
            # Of the validation part or the folds: what the batch's report holds its scores against.
            "score_reference": found.score_reference,
            **({} if found.figures is None else {"figures": found.figures}),
        },
    )
    checkpoint.save(folder, model.network.float(), card, beside)
    return epoch


def provenance(
    model: MultiTask, data: CohortData, trainer: lightning.Trainer, seed: int, best_epoch: int
) -> dict[str, Any]:
    """What a reader of the card must know to judge and repeat the training."""
    cohort = data.cohort
    parts = {
        name: {"patients": data.patients(name), "images": len(part)}
        for name, part in data.parts.items()
    }
    mixed_of = {
        name: {"patients": patients, "images": images}
        for name, patients, images in shares(cohort, data.indices["train"])
    }
    return {
        "cohort": {
            **cohort.about,
            "split_seed": data.split_seed,
            "folds": data.folds,
            "fold": data.fold,
            "divided_by": data.divided_by,
            "malignant_only": data.malignant_only,
            **parts,
            **({"mixed_of": mixed_of} if mixed_of else {}),
        },
        "labels": model.label_counts,
        "seed": seed,
        "best_epoch": best_epoch,
        "epochs": trainer.max_epochs,
        "batch_size": data.batch_size,
        "learning_rate": model.learning_rate,
        "schedule": model.schedule,
        "step_epochs": model.step_epochs,
        "weight_decay": model.weight_decay,
        "average_decay": model.average_decay,
        "augmentation": data.augmentation.model_dump(),
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "weights": model.weights_known_as,
        "loss": model.loss.model_dump(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("sonode", "torch", "torchvision", "lightning", "timm")
            if name != "timm" or model.architecture not in RESNETS
        },
    }
