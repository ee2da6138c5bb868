"""The training task: network, loss, optimiser and the metrics of each part.

Shapes in names: B batch, N images of a part, K heads, L logits of all heads, S input side.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning
import pandas as pd
import torch
from jsonargparse.typing import (
    NonNegativeFloat,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    restricted_string_type,
)

from model_def.heads import (
    HeadSpec,
    Hierarchy,
    check_heads,
    keep_heads,
    logit_slices,
    probabilities,
)
from model_def.network import ArchitectureError, Network
from model_def.preprocessing import Preprocessing, normalise
from sonode.console import UserError, say
from train.cohorts.labels import absent_given, child_labels, label_codes
from train.data.datamodule import CohortData
from train.fitting import losses
from train.fitting.aucs import HeadAuc, head_aucs
from train.fitting.calibration.calibrate import OPERATING_POINT
from train.fitting.calibration.conformal import LEVEL
from train.fitting.calibration.outliers import FALSE_ALARMS
from train.fitting.calibration.temperature import calibrated_loss
from train.fitting.pretrained import load_trunk
from train.fitting.weight_average import MovingAverage

Batch = tuple[torch.Tensor, torch.Tensor]
OperatingPoint = restricted_string_type("OperatingPoint", OPERATING_POINT)


class MultiTask(lightning.LightningModule):
    """One trunk, several heads, trained with masked cross entropies and the hierarchical term."""

    def __init__(
        self,
        heads: tuple[HeadSpec, ...],
        hierarchy: Hierarchy = "independent",
        architecture: str = "resnet50",
        weights: str = "none",
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - frozen
        loss: losses.LossSettings = losses.LossSettings(),  # noqa: B008 - frozen
        learning_rate: PositiveFloat = 1e-4,
        schedule: Literal["step", "one_cycle"] = "step",
        step_epochs: PositiveInt = 50,
        weight_decay: NonNegativeFloat = 0.0,
        average_decay: OpenUnitInterval | None = None,
        operating_point: OperatingPoint = "0.5",  # type: ignore[valid-type]
        label_set_level: OpenUnitInterval = LEVEL,
        false_alarms: OpenUnitInterval = FALSE_ALARMS,
    ) -> None:
        """Take the model's configuration; the defaults are the paper's, its heads in paper.yaml.

        `architecture`: the trunk, see `model_def.network`. `weights`: what it starts from, see
        `train.fitting.pretrained`. `operating_point`: the threshold
        to serve with, `0.5`, `youden` or `sensitivity_S` with S of your choice; all are chosen on
        validation and stand in the card.
        `schedule`: `step` divides the learning rate by 10 every `step_epochs` epochs; `one_cycle`
        rises to `learning_rate` and falls again (Smith & Topin 2017), for short runs.
        `weight_decay`: decoupled from the gradient (AdamW, Loshchilov & Hutter 2019); 0 is Adam.
        `average_decay`: keep a moving average of the weights with this decay a step, and validate
        and export it in their place (Polyak & Juditsky 1992); None: the weights themselves.
        `label_set_level`: the share of lesions whose label is in its set, see
        `train.fitting.calibration.conformal`. `false_alarms`: of new patients' images, at most this
        share is flagged as out of distribution. Both are promised in the card; where validation has
        too few patients for them, it says so and promises nothing.
        """
        super().__init__()
        try:
            check_heads(heads)
        except ValueError as error:
            raise UserError(f"model.{error}") from error
        self.architecture, self.preprocessing = architecture, preprocessing
        self.heads, self.hierarchy = heads, hierarchy
        self.weights, self.operating_point = weights, str(operating_point)
        # Plain numbers: jsonargparse's own types would go into the optimiser's state, and a
        # resumed run could not read its checkpoint without running code.
        self.loss, self.learning_rate = loss, float(learning_rate)
        self.schedule, self.step_epochs = schedule, int(step_epochs)
        self.weight_decay = float(weight_decay)
        self.label_set_level, self.false_alarms = float(label_set_level), float(false_alarms)
        self.average_decay = None if average_decay is None else float(average_decay)
        n_logits = sum(head.n_logits for head in heads)
        try:
            network = Network(architecture, n_logits)
        except ArchitectureError as error:
            raise UserError(f"model.{error}") from error
        self.network = network.to(memory_format=torch.channels_last)
        self.weights_known_as = ""  # for the card, as they were when training began
        self.label_counts: dict[str, dict[str, int]] = {}
        self.aucs: list[HeadAuc] = []
        self._outputs: list[Batch] = []

    def setup(self, stage: str) -> None:
        """Load the data for the configured heads; before training, drop those without a label.

        A head that never sees a label would be served with numbers that mean nothing.

        Raises UserError: no head is left, or one lacks some of its labels in the training part.
        """
        data: CohortData = self.trainer.datamodule  # type: ignore[attr-defined]
        data.setup_for(self.heads, self.preprocessing)
        if stage != "fit":
            return
        self.load_weights()
        kept, learned_NK = self._learnable(data.parts["train"].labels_NK)
        for k, label_N in zip(kept, learned_NK.T, strict=True):
            head = self.heads[k]
            counts = {
                label: int((label_N == place).sum()) for place, label in enumerate(head.labels)
            }
            if not all(counts.values()):
                shown = ", ".join(f"{label} {count}" for label, count in counts.items())
                raise UserError(
                    f"head {head.name}: the training part lacks a label of `{head.target}` "
                    f"({shown}; divided by {data.divided_by}); divide it otherwise if the cohort "
                    "has such lesions, else take the head out of model.heads"
                )
            self.label_counts[head.name] = counts
        if not kept:
            raise UserError("heads: no head has a label in the training part; label the cohort")
        self._keep(kept)
        for part in data.parts.values():
            part.labels_NK = part.labels_NK[:, kept]
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, MovingAverage):
                callback.begin(self.trainer, self)

    def load_weights(self) -> None:
        """Fill the trunk with what training starts from: see `load_trunk`.

        Raises UserError: as `load_trunk`.
        """
        self.weights_known_as = load_trunk(
            self.network, self.architecture, self.weights, self.preprocessing
        )

    def _learnable(self, labels_NK: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        """Places of the heads that have labels to learn from, and those labels (N, kept).

        One head at a time is left out, parents first: what its children learn from depends on the
        parent that they are given in its place.
        """
        kept = list(range(len(self.heads)))
        while True:
            heads = keep_heads(self.heads, [self.heads[k].name for k in kept])
            learned_NK = child_labels(
                labels_NK[:, kept], heads, self.hierarchy, self.loss.parent_negative
            )
            own_NK = labels_NK[:, kept]  # what follows from a parent alone teaches a head nothing
            blank_K = (own_NK.isnan().all(dim=0) | learned_NK.isnan().all(dim=0)).tolist()
            if not any(blank_K):
                return kept, learned_NK
            name = self.heads[kept.pop(blank_K.index(True))].name
            if self.trainer.is_global_zero:
                say(f"head {name}: no label in the training part; left out of the model")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the first weights were: on resuming their file may hold something else."""
        checkpoint["weights_known_as"] = self.weights_known_as

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self.weights_known_as = checkpoint.get("weights_known_as", self.weights_known_as)

    def configure_callbacks(self) -> list[lightning.Callback]:
        """The moving average of the weights, where there is one."""
        return [] if self.average_decay is None else [MovingAverage(decay=self.average_decay)]

    def _keep(self, indices: list[int]) -> None:
        slices = logit_slices(self.heads)
        places = [range(slices[head.name].start, slices[head.name].stop) for head in self.heads]
        self.network.keep_logits([place for k in indices for place in places[k]])
        self.heads = keep_heads(self.heads, [self.heads[k].name for k in indices])

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """The loss of one batch of (uint8 (B, S, S), labels (B, K))."""
        return self._shared_step(batch, "train")[0]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Keep probabilities and labels for the end of the epoch."""
        self._keep_outputs(batch, "val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Keep probabilities and labels for the end of the epoch."""
        self._keep_outputs(batch, "test")

    def _keep_outputs(self, batch: Batch, stage: str) -> None:
        _, logits_BL = self._shared_step(batch, stage)
        self._outputs.append((logits_BL.cpu(), batch[1].cpu()))

    def _shared_step(self, batch: Batch, stage: str) -> tuple[torch.Tensor, torch.Tensor]:
        images_BSS, labels_BK = batch
        images_B3SS = normalise(images_BSS, self.preprocessing)
        logits_BL, _ = self.network(images_B3SS.contiguous(memory_format=torch.channels_last))
        logits_BL = logits_BL.float()
        loss = losses.total(logits_BL, labels_BK, self.heads, self.hierarchy, self.loss)
        self.log(
            *(f"{stage}_loss", loss),
            on_step=False,
            on_epoch=True,
            batch_size=len(labels_BK),
            sync_dist=True,
        )
        return loss, logits_BL

    def on_validation_epoch_end(self) -> None:
        """AUCs of the validation part, and the loss by which the best epoch is chosen."""
        logits_NL, labels_NK = self._log_aucs("val")
        loss = calibrated_loss(
            logits_NL,
            labels_NK,
            self.heads,
            self.hierarchy,
            self.loss.parent_negative,
            self._column("patient_id", "val", len(logits_NL)).tolist(),
        )
        self.log("val_calibrated_loss", loss, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """AUCs of the test part."""
        self._log_aucs("test")

    def _log_aucs(self, stage: str) -> tuple[torch.Tensor, torch.Tensor]:
        logits_NL, labels_NK = (torch.cat(part) for part in zip(*self._outputs, strict=True))
        self._outputs.clear()
        probability_NL = probabilities(logits_NL, self.heads, self.hierarchy)
        beside = {}
        if (given := absent_given(self.heads)) is not None:
            codes = label_codes(self._column(given, stage, len(labels_NK)), ("no", "yes"))
            beside[given] = torch.from_numpy(codes)
        self.aucs = head_aucs(probability_NL, labels_NK, self.heads, beside)
        for found in self.aucs:
            if found.auc is not None:
                name = f"{stage}_auc/{found.head}/{found.on.replace(' ', '_')}"
                self.log(name, found.auc, sync_dist=True)
        return logits_NL, labels_NK

    def _column(self, name: str, stage: str, n: int) -> pd.Series[Any]:
        """That column of the part's first n images: Lightning's first check sees some batches."""
        data: CohortData = self.trainer.datamodule  # type: ignore[attr-defined]
        return data.cohort.table[name].iloc[data.indices[stage][:n]]

    def configure_optimizers(self) -> Any:
        """AdamW, which is Adam where nothing decays, with the configured schedule."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        if self.schedule == "step":
            step = torch.optim.lr_scheduler.StepLR(optimizer, self.step_epochs, gamma=0.1)
            return {"optimizer": optimizer, "lr_scheduler": step}
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise UserError(
                "model.schedule one_cycle: needs the number of steps; give trainer.max_epochs"
            )
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=int(steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
