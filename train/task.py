"""The training task: network, loss, optimiser and the metrics of each part.

Shapes in names: B batch, N images of a part, K heads, S input side.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import lightning
import torch
from torchmetrics.functional.classification import binary_auroc

from model_def.heads import HeadSpec, check_heads, probabilities
from model_def.network import Architecture, Network
from model_def.preprocessing import Preprocessing, normalise
from sonode_console import UserError, say
from train import losses
from train.datamodule import CohortData

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class HeadAuc:
    """ROC AUC of one head on one set of images; None where it is undefined (one class only)."""

    head: str
    on: str
    """`all`, or the parent's positives: the paper evaluates ALNM on malignant lesions."""
    n_images: int
    n_positive: int
    auc: float | None


def head_aucs(
    probability_NK: torch.Tensor, labels_NK: torch.Tensor, heads: tuple[HeadSpec, ...]
) -> list[HeadAuc]:
    """AUCs of every head that has labels, on all images and on its parent's positives."""
    index = {head.name: k for k, head in enumerate(heads)}
    found = []
    for k, head in enumerate(heads):
        known_N = ~labels_NK[:, k].isnan()
        sets = {"all": known_N}
        if head.parent is not None:
            positive_N = labels_NK[:, index[head.parent]] == 1
            sets = {f"{head.parent} positive": known_N & positive_N, **sets}
        for on, chosen_N in sets.items():
            label_N = labels_NK[chosen_N, k].long()
            if not len(label_N):
                continue
            n_positive = int(label_N.sum())
            defined = 0 < n_positive < len(label_N)
            auc = float(binary_auroc(probability_NK[chosen_N, k], label_N)) if defined else None
            found.append(HeadAuc(head.name, on, len(label_N), n_positive, auc))
    return found


class MultiTask(lightning.LightningModule):
    """One trunk, several heads, trained with masked cross entropies and the hierarchical term."""

    def __init__(
        self,
        heads: tuple[HeadSpec, ...],
        architecture: Architecture = "resnet50",
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - frozen
        loss: losses.LossSettings = losses.LossSettings(),  # noqa: B008 - frozen
        learning_rate: float = 1e-4,
        schedule: Literal["step", "one_cycle"] = "step",
        step_epochs: int = 50,
    ) -> None:
        """Take the model's configuration; the defaults are the paper's, its heads in paper.yaml.

        `schedule`: `step` divides the learning rate by 10 every `step_epochs` epochs; `one_cycle`
        rises to `learning_rate` and falls again (Smith & Topin 2017), for short runs.
        """
        super().__init__()
        try:
            check_heads(heads)
        except ValueError as error:
            raise UserError(f"model.{error}") from error
        self.architecture, self.heads, self.preprocessing = architecture, heads, preprocessing
        self.loss, self.learning_rate = loss, learning_rate
        self.schedule, self.step_epochs = schedule, step_epochs
        self.network = Network(architecture, len(heads)).to(memory_format=torch.channels_last)
        self.label_counts: dict[str, dict[str, int]] = {}
        self.aucs: list[HeadAuc] = []
        self._outputs: list[Batch] = []

    def setup(self, stage: str) -> None:
        """Load the data for the configured heads; before training, drop those without a label.

        A head that never sees a label would be served with numbers that mean nothing.

        Raises:
            UserError: no head is left, or one has a single class in the training part.
        """
        data: CohortData = self.trainer.datamodule  # type: ignore[attr-defined]
        data.setup_for(self.heads, self.preprocessing)
        if stage != "fit":
            return
        labels_NK = losses.child_labels(
            data.parts["train"].labels_NK, self.heads, self.loss.parent_negative
        )
        kept = []
        for k, head in enumerate(self.heads):
            negative, positive = (int((labels_NK[:, k] == value).sum()) for value in (0, 1))
            if negative + positive == 0:
                say(f"head {head.name}: no label in the training part; left out of the model")
                continue
            if not negative or not positive:
                raise UserError(
                    f"head {head.name}: the training part has {positive} positive and {negative} "
                    f"negative labels of `{head.target}`; it needs both, or none to be left out"
                )
            self.label_counts[head.name] = {"negative": negative, "positive": positive}
            kept.append(k)
        if not kept:
            raise UserError("heads: no head has a label in the training part; label the cohort")
        self._keep(kept)
        for part in data.parts.values():
            part.labels_NK = part.labels_NK[:, kept]

    def _keep(self, indices: list[int]) -> None:
        names = {self.heads[k].name for k in indices}
        self.heads = tuple(
            head if head.parent in names else head.model_copy(update={"parent": None})
            for head in (self.heads[k] for k in indices)
        )
        self.network.keep_heads(indices)

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
        _, logits_BK = self._shared_step(batch, stage)
        self._outputs.append((probabilities(logits_BK, self.heads).cpu(), batch[1].cpu()))

    def _shared_step(self, batch: Batch, stage: str) -> tuple[torch.Tensor, torch.Tensor]:
        images_BSS, labels_BK = batch
        images_B3SS = normalise(images_BSS, self.preprocessing)
        logits_BK, _ = self.network(images_B3SS.contiguous(memory_format=torch.channels_last))
        logits_BK = logits_BK.float()
        loss = losses.total(logits_BK, labels_BK, self.heads, self.loss)
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels_BK))
        return loss, logits_BK

    def on_validation_epoch_end(self) -> None:
        """AUCs of the validation part."""
        self._log_aucs("val")

    def on_test_epoch_end(self) -> None:
        """AUCs of the test part."""
        self._log_aucs("test")

    def _log_aucs(self, stage: str) -> None:
        probability_NK, labels_NK = (torch.cat(part) for part in zip(*self._outputs, strict=True))
        self._outputs.clear()
        self.aucs = head_aucs(probability_NK, labels_NK, self.heads)
        for found in self.aucs:
            if found.auc is not None:
                self.log(f"{stage}_auc/{found.head}/{found.on.replace(' ', '_')}", found.auc)

    def configure_optimizers(self) -> Any:
        """Adam with the configured schedule."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        if self.schedule == "step":
            step = torch.optim.lr_scheduler.StepLR(optimizer, self.step_epochs, gamma=0.1)
            return {"optimizer": optimizer, "lr_scheduler": step}
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
