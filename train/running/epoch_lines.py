"""What `sonode train` prints: a line an epoch, and AUCs as text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, RichProgressBar

from sonode.console import UserError, counted, say
from train.cohorts.mixed import shares
from train.data.datamodule import CohortData
from train.fitting.aucs import HeadAuc


class EpochLines(Callback):
    """One plain line an epoch: what a person needs to see whether it learns."""

    def __init__(self, keep: str) -> None:
        self.keep = keep

    def on_fit_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Say what the cached crops take: a cohort that does not fit is better known at once.

        And what was chosen for this machine, unless it was given.
        """
        if trainer.is_global_zero:
            data: CohortData = trainer.datamodule  # type: ignore[attr-defined]
            sizes = [its.nbytes for part in data.parts.values() for its in part.crops]
            crops = counted(len(sizes), "crop")
            say(f"{crops} as stored, {sum(sizes) / 2**20:.0f} MiB of memory")
            how = f"precision {trainer.precision}, processes {trainer.world_size}"
            say(f"seed {data.seed}, {how}")
            for name, patients, images in shares(data.cohort, data.indices["train"]):
                say(
                    f"cohort {name}: to train on {counted(patients, 'patient')}, "
                    f"{counted(images, 'image')}, "
                    f"{images / len(data.parts['train']):.0%}; each image weighs the same"
                )
            say(
                "epoch to keep: the last; nothing is chosen on a validation part"
                if self.keep == "last"
                else "epoch to keep: the one whose validation loss, temperatures fitted, is lowest"
            )

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start the epoch's clock."""
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Print losses, validation AUCs and seconds."""
        values = trainer.callback_metrics
        aside = len(trainer.datamodule.parts["val"])  # type: ignore[attr-defined]
        if aside and "val_loss" not in values:
            raise UserError(
                "trainer: validation is switched off, and the checkpoint is chosen by its loss; "
                "leave limit_val_batches and check_val_every_n_epoch as they are"
            )
        if not values["train_loss"].isfinite():
            raise UserError(
                f"training diverged in epoch {trainer.current_epoch + 1} (loss NaN or infinite); "
                "give a smaller model.learning_rate and a new --out"
            )
        if not trainer.is_global_zero:
            return
        judged = ""
        if aside:
            aucs = (f"{name} {shown(found)}" for name, found in primary(module.aucs).items())
            # The loss that decides, not the plain one: that one is in the CSV alone.
            judged = f", validation {values['val_calibrated_loss']:.3f}, AUC {', '.join(aucs)}"
        say(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: "
            f"loss {values['train_loss']:.3f}{judged} ({time.monotonic() - self.started:.0f} s)"
        )


class EpochBar(RichProgressBar):
    """Lightning's bar on a terminal, whose epochs count from 1 as those of the lines do."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}".ljust(
            len(self.validation_description)
        )


def primary(aucs: Sequence[HeadAuc]) -> dict[str, HeadAuc]:
    """Each head's main figure, its first: on its topmost parent's positives where it has one."""
    first: dict[str, HeadAuc] = {}
    for found in aucs:
        first.setdefault(found.head, found)
    return first


def shown(found: HeadAuc) -> str:
    """The AUC as text; `undefined` where it is, never a number."""
    return "undefined" if found.auc is None else f"{found.auc:.3f}"
