"""The moving average of the weights, which is what is validated, kept and served."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import EMAWeightAveraging


class MovingAverage(EMAWeightAveraging):
    """Lightning's, begun once the task knows which heads it keeps and what its trunk starts from.

    Callbacks are set up before the task is; `begin` is what the task calls at the end of its own
    set-up, before a resumed run's checkpoint is read.
    """

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Nothing yet."""

    def begin(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Take the task's weights of this moment as the average."""
        super().setup(trainer, module, "fit")
