"""The checkpoint that is packed: the best epoch's weights, calibrated, with their model card."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import lightning
import pyarrow as pa
import torch

from model_def import checkpoint, outliers
from model_def.network import RESNETS
from sonode.console import say
from train.fitting.calibration import calibrate, score_histograms
from train.fitting.datamodule import CohortData
from train.fitting.leakage import IMAGES, images_of
from train.fitting.losses import spoken_of
from train.fitting.outliers import flag
from train.fitting.predictions import logits_and_features_of
from train.fitting.task import MultiTask


def export(
    best_path: str,
    model: MultiTask,
    data: CohortData,
    trainer: lightning.Trainer,
    seed: int,
    seen_before: pa.Table | None,
    folder: Path,
) -> int:
    """Write the checkpoint of Lightning's best one at `best_path`; returns its epoch, from 0.

    `seed`: that of the training. `seen_before`: the images that the weights it began with had seen.
    """
    best = torch.load(best_path, weights_only=True, map_location="cpu")
    prefix = "network."
    state = best["state_dict"].items()
    model.network.load_state_dict({name.removeprefix(prefix): value for name, value in state})
    validation = data.parts["val"]
    patients = data.cohort.table["patient_id"].iloc[data.indices["val"]].tolist()
    network, facts = model.network.cpu(), model.preprocessing
    logits_NL, features_NC = logits_and_features_of(network, validation, facts)
    heads, account = calibrate(
        logits_NL,
        validation.labels_NK,
        spoken_of(
            model.heads,
            model.hierarchy,
            model.loss.parent_negative,
            malignant_only=data.malignant_only,
        ),
        model.hierarchy,
        model.loss.parent_negative,
        model.operating_point,
        patients,
    )
    distance, limit = flag(
        lambda: logits_and_features_of(network, data.parts["train"], facts)[1],
        features_NC,
        patients,
    )
    if limit.why is not None:
        say(f"no out-of-distribution flag: {limit.why}")
    epoch = int(best["epoch"])
    card = checkpoint.ModelCard(
        architecture=model.architecture,
        heads=heads,
        hierarchy=model.hierarchy,
        preprocessing=model.preprocessing,
        out_of_distribution=limit,
        training={
            **provenance(model, data, trainer, seed, epoch),
            "temperatures": account,
            # Of the validation part: what the batch's report holds its scores against.
            "score_reference": score_histograms(logits_NL, heads, model.hierarchy),
        },
    )
    beside = {IMAGES: images_of(data, seen_before)}
    if distance is not None:
        beside[outliers.FILE] = distance.content()
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
    return {
        "cohort": {
            "name": cohort.name,
            "sha256": cohort.sha256,
            "synthetic": cohort.synthetic,
            "patient_ids": cohort.patient_ids,
            "split_seed": data.split_seed,
            "folds": data.folds,
            "fold": data.fold,
            "malignant_only": data.malignant_only,
            **parts,
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
