"""`sonode train fit` as shipped against a bare training loop, both in one run on one device.

python -m tests.benchmarks.training [--config pretrain] [--patients N] [--epochs N] [any train flag]

After each epoch of the real run, as many steps of a bare loop are timed: forward, backward and Adam
of the same network, batch size and precision on one normalised batch that is in memory already. So
both sides see the machine in the same mood. Last the loader is timed alone. Validation is not
counted on any side.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from model_def.network import Network
from model_def.preprocessing import normalise
from tests.benchmarks.machine import Compared, table
from train.importers.phantom import write_phantom
from train.importers.table import import_voc
from train.running.command import run

CONFIGS = Path(__file__).parents[2] / "train" / "configs"


class Clock(Callback):
    """Times epochs of the real run, and a bare loop after each; the first epoch only warms up."""

    shipped: list[float] = []  # noqa: RUF012 - of the one run of this process
    bare: list[float] = []  # noqa: RUF012
    loader: list[float] = []  # noqa: RUF012

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self.started, self.images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        self.images += len(batch[0])
        wait_for(batch[0].device)
        self.stopped = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        loop = BareLoop(module, next(iter(trainer.train_dataloader)))
        steps = trainer.num_training_batches
        if trainer.current_epoch > 0:
            self.shipped.append(self.images / (self.stopped - self.started))
            self.bare.append(loop.per_second(steps))

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        loader = trainer.train_dataloader
        for _ in range(3):
            started = time.perf_counter()
            images = sum(len(batch[0]) for batch in loader)
            self.loader.append(images / (time.perf_counter() - started))


def wait_for(device: torch.device) -> None:
    """A GPU works on after the call has come back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class BareLoop:
    """Forward, backward and Adam, and nothing else."""

    def __init__(self, module: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.device = module.device
        self.network = Network(module.architecture, module.network.heads.out_features)
        self.network.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        images_B3SS = normalise(batch[0].to(self.device), module.preprocessing)
        self.images_B3SS = images_B3SS.contiguous(memory_format=torch.channels_last)
        self.labels_BL = torch.zeros(len(batch[0]), self.network.heads.out_features).to(self.device)
        self.bf16 = "bf16" in str(module.trainer.precision)
        self.step()  # warm

    def step(self) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits_BL, _ = self.network(self.images_B3SS)
        torch.nn.functional.binary_cross_entropy_with_logits(
            logits_BL.float(), self.labels_BL
        ).backward()
        self.optimizer.step()

    def per_second(self, steps: int) -> float:
        wait_for(self.device)
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        wait_for(self.device)
        return steps * len(self.images_B3SS) / (time.perf_counter() - started)


def main() -> list[Compared]:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", default="pretrain")
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=5)
    arguments, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        cohort = Path(name) / "cohort"
        write_phantom(cohort, arguments.patients, 0)
        import_voc(cohort, cohort, name="phantom", synthetic=True)
        run(
            [
                *("fit", "--config", str(CONFIGS / f"{arguments.config}.yaml")),
                *("--data.cohort", str(cohort), "--out", f"{name}/out"),
                f"--trainer.max_epochs={arguments.epochs + 1}",
                "--trainer.callbacks+=tests.benchmarks.training.Clock",
                *flags,
            ]
        )
    # By the module's name: the command line made its Clock from there, not from __main__.
    from tests.benchmarks.training import Clock as Used

    ratios = [a / b for a, b in zip(Used.shipped, Used.bare, strict=True)]
    bare = statistics.median(Used.bare)
    rows = [
        ("bare forward, backward, Adam", bare, 1.0),
        ("sonode train fit", statistics.median(Used.shipped), statistics.median(ratios)),
        ("the loader alone", statistics.median(Used.loader), statistics.median(Used.loader) / bare),
    ]
    table(
        f"{arguments.config}.yaml {' '.join(flags)}: median of {len(ratios)} epochs, "
        f"{torch.get_num_threads()} threads",
        ("what", "images/s", "of the bare loop"),
        [(what, f"{speed:.1f}", f"{ratio:.2f}") for what, speed, ratio in rows],
    )
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"sonode train fit / bare loop, epoch by epoch: {spread}")
    return [
        ("sonode train fit, of the bare loop", f"{statistics.median(ratios):.2f} ({spread})", "")
    ]


if __name__ == "__main__":
    main()
