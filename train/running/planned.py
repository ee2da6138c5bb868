"""Settings of a training as they were read, and how long its steps take here, before it begins."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import default_collate

from model_def.preprocessing import normalise
from sonode.console import UserError, counted
from train.cohorts.folds import Texts, groups_of
from train.cohorts.labels import child_labels, label_matrix
from train.data.augment import augmentation
from train.data.crops import Crops
from train.fitting import losses
from train.running.cli import RECORD, TrainCLI
from train.running.command import run

FOLDS = "folds"  # the folder of the folds' networks, inside OUT
TIMED = 3  # steps, after one that warms up


class Planned(TrainCLI):
    """Reads the settings of `fit` and makes its task, data and trainer, but trains nothing."""

    def begun(self) -> Path | None:
        """The record of earlier folds in OUT, in whose precision the others are trained."""
        record: Path = self.settings.out / FOLDS / RECORD
        return record if record.exists() else None

    def before_fit(self) -> None:
        """Only what may be wrong with the weights: it is said before anything is trained."""
        self.model.load_weights()

    def fit(self, **_: Any) -> None:
        """Nothing: Lightning calls it in place of its own."""

    def after_fit(self) -> None:
        """Nothing to export."""


def planned(arguments: list[str]) -> Planned:
    """What `sonode train fit` would train with these arguments.

    Raises UserError: as of `run`; or training does not end after a number of epochs.
    """
    cli = run(["fit", *arguments], Planned)
    assert isinstance(cli, Planned)
    trainer = cli.settings.trainer
    if not trainer.max_epochs or trainer.max_epochs < 1:
        raise UserError(f"trainer.max_epochs {trainer.max_epochs}: give a number of epochs")
    if trainer.max_steps != -1 or trainer.max_time is not None:
        raise UserError(
            "trainer.max_steps and max_time: would end folds at different epochs; give "
            "trainer.max_epochs alone"
        )
    return cli


def check_classes(cli: TrainCLI, fold_N: Texts) -> None:
    """Refuse folds that a head cannot be trained and measured with.

    A head without any label is left out of the network, as ever.

    Raises UserError: a head has labels of one class alone, fewer patients of a class than there are
    folds, or a class that lies in one fold alone.
    """
    data, model = cli.datamodule, cli.model
    table = data.cohort.table
    labels_NK = label_matrix(table, model.heads)
    if data.malignant_only:
        labels_NK[(table["malignant"] != True).fillna(True).to_numpy(dtype=bool)] = torch.nan  # noqa: E712
    learned_NK = child_labels(
        labels_NK, model.heads, model.hierarchy, model.loss.parent_negative
    ).numpy()
    group_N, count = groups_of(data.cohort), len(set(fold_N))
    for head, label_N in zip(model.heads, learned_NK.T, strict=True):
        if np.isnan(label_N).all():
            continue
        for place, label in enumerate(head.labels):
            own_N = label_N == place
            patients = len(set(group_N[own_N]))
            if not patients:
                raise UserError(
                    f"head {head.name}: the cohort has labels, but no {label!r}; with one class "
                    "there is nothing to learn; take the head out of model.heads"
                )
            if patients < count:
                raise UserError(
                    f"data.folds {data.folds}: {count} folds, and only "
                    f"{counted(patients, 'patient')} with {label!r} of {head.name} "
                    "(similar ones counted once); give fewer folds (2 at least) or more patients"
                )
            if len(its := set(fold_N[own_N])) == 1:
                raise UserError(
                    f"data.folds {data.folds}: all {label!r} of {head.name} lie in fold "
                    f"{its.pop()}, so the others have none to train on; give other folds, or take "
                    "the head out of model.heads"
                )


class Seconds(NamedTuple):
    """What a training takes on this machine."""

    step: float
    """One training step."""
    image: float
    """One image of the validation part."""


def measured(cli: TrainCLI) -> Seconds:
    """Train a few steps on the cohort's first images, with weights that are thrown away."""
    data, model, facts = cli.datamodule, cli.model, cli.model.preprocessing
    device, precision = cli.trainer.strategy.root_device, cli.trainer.precision_plugin
    some = list(range(min(len(data.cohort.table), data.batch_size)))
    crops, labels_NK = data.crops_of(some, facts), label_matrix(data.cohort.table, model.heads)
    training = Crops(crops, labels_NK[some], facts, augmentation(data.augmentation, facts.size))
    scoring = Crops(crops, labels_NK[some], facts, None)
    network = model.network.to(device)
    optimizer = torch.optim.AdamW(network.parameters())

    def logits_of(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        images_BSS, labels_BK = (it.to(device) for it in default_collate(samples))
        images_B3SS = normalise(images_BSS, facts).contiguous(memory_format=torch.channels_last)
        with precision.forward_context():
            return network(images_B3SS)[0].float(), labels_BK

    def step() -> float:
        started = time.monotonic()
        batch = [training[order % len(some), order] for order in range(data.batch_size)]
        loss = losses.total(*logits_of(batch), model.heads, model.hierarchy, model.loss)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())  # waits for the device
        return time.monotonic() - started

    def image() -> float:
        started = time.monotonic()
        with torch.inference_mode():
            float(logits_of([scoring[order] for order in some])[0].sum())
        return (time.monotonic() - started) / len(some)

    network.train()
    steps = [step() for _ in range(1 + TIMED)]
    network.eval()
    images = [image() for _ in range(2)]
    return Seconds(statistics.median(steps[1:]), images[-1])


def spoken(seconds: float) -> str:
    """A duration in words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
