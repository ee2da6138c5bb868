"""`sonode train`: Lightning's command line over this project's task and data."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sonode.console import UserError, say, table
from train.cohorts.split import Part
from train.data.datamodule import ALL, CohortData
from train.data.leakage import seen_before
from train.data.split_remarks import split_remarks
from train.fitting.export import export
from train.fitting.task import MultiTask
from train.running import resume
from train.running.epoch_lines import EpochBar, EpochLines, shown
from train.running.exported import CHECKPOINT, load_exported
from train.running.precision import best_precision

RECORD = "config.yaml"  # of a run, inside OUT
Keep = Literal["loss", "last"]


class TrainCLI(LightningCLI):
    """Adds `--out`, resuming, the export of the best weights and the account of the test."""

    model: MultiTask
    datamodule: CohortData
    trainer: lightning.Trainer

    def __init__(self, held: ExitStack, step: str, *given: Any, **named: Any) -> None:
        self.held = held  # what is let go of when the command ends; super() runs the command
        self.step = step
        super().__init__(*given, **named)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static there
        """The one that was asked for: to make the parsers of all four takes most of a start."""
        return {self.step: super().subcommands()[self.step]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what Lightning does not have."""
        parser.add_argument("--out", type=Path, required=True, help="Folder of the checkpoint.")
        parser.add_argument(
            "--keep",
            type=Keep,
            default="loss",
            help="Which epoch is exported: that of the lowest validation `loss` once temperatures "
            "are fitted, or the `last`.",
        )
        parser.add_argument(
            "--pooled",
            type=Path | None,
            default=None,
            help="What `sonode train folds` found, for its last network on every patient.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read YAML and flags."""
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError as error:
            raise UserError("--config: not a text file; give a YAML file") from error
        trainer = self.settings.trainer
        if trainer.precision is None and not trainer.plugins:  # one may bring its own
            # Here, so that it stands in config.yaml: a run goes on in the precision it began with,
            # whatever the machine that it goes on on has.
            if self.config["subcommand"] == "fit":
                begun = self.begun()
                trainer.precision = (begun and resume.precision_of(begun)) or best_precision(
                    trainer.accelerator
                )
            else:
                trainer.precision = "32-true"  # as in `sonode evaluate`: one checkpoint, one figure
        seed = self.settings.seed_everything
        if isinstance(seed, bool) or not 0 <= seed < 2**32:
            given = "is missing" if seed is True else seed  # True: Lightning would draw one
            raise UserError(
                f"--seed_everything {given}: give an integer from 0 to {2**32 - 1}, there or as "
                "`seed_everything` in the YAML of --config"
            )
        if str(trainer.precision) in ("64", "64-true", "16-true", "bf16-true"):
            raise UserError(
                f"trainer.precision {trainer.precision}: weights are kept in float32; give "
                "32-true, bf16-mixed or 16-mixed"
            )
        if trainer.overfit_batches:
            raise UserError(
                f"trainer.overfit_batches {trainer.overfit_batches}: validation would be of images "
                "that are trained on; leave it out"
            )

    def begun(self) -> Path | None:
        """The record of the interrupted run that would go on; None where there is none."""
        out: Path = self.settings.out
        return out / RECORD if (out / resume.RUN / resume.LAST).exists() else None

    def instantiate_classes(self) -> None:
        """Build trainer, task and data from the settings."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UserError(f"train: {' '.join(str(error).split())}") from error

    @property
    def settings(self) -> Any:
        """The validated configuration of the running subcommand."""
        return self.config[self.config["subcommand"]]

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Point loggers and checkpoints below OUT."""
        run = self.settings.out / resume.RUN
        given = self.config_init[str(self.subcommand)].trainer
        if given.default_root_dir is not None:
            raise UserError("--trainer.default_root_dir: is below --out; give only --out")
        best = ModelCheckpoint(run, "best", monitor="val_calibrated_loss")
        # A rule of its own: `save_last` writes only where a best one is written, too.
        latest = ModelCheckpoint(
            run,
            Path(resume.LAST).stem,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        for file in (best, latest):
            # As it was given, which is what a run that goes on has in common. Lightning makes it
            # absolute, and forgets which epoch was the best where that has changed.
            file.dirpath = str(run)
        self.kept = best if self.settings.keep == "loss" else latest
        self.csv = CSVLogger(run, name="", version="csv")
        # Of a training alone: a logger of `test` would overwrite its files.
        loggers = (
            [self.csv, TensorBoardLogger(run, name="", version="tensorboard")]
            if self.subcommand == "fit"
            else []
        )
        own = _several(given.callbacks)
        if given.enable_progress_bar and not any(isinstance(it, ProgressBar) for it in own):
            own.append(EpochBar())
        kwargs = {
            "default_root_dir": run,
            # The user's own come first: what they do is theirs, what is logged is complete.
            "callbacks": [
                *own,
                *([best] if self.settings.keep == "loss" else []),
                latest,
                EpochLines(self.settings.keep),
            ],
            "logger": given.logger is not False and [*_several(given.logger), *loggers],
            **({"limit_val_batches": 0} if self.datamodule.fold == ALL else {}),
            **kwargs,
        }
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Refuse to train over a finished checkpoint; go on where an interrupted run stopped."""
        self.datamodule.seed = self.settings.seed_everything
        out: Path = self.settings.out
        if (out / CHECKPOINT).exists():
            raise UserError(f"--out {out}: holds a finished checkpoint; give another folder")
        record, text = out / RECORD, self.record()
        if (self.datamodule.fold == ALL) != (self.settings.pooled is not None):
            raise UserError(
                f"data.fold {self.datamodule.fold}, pooled {self.settings.pooled}: a network on "
                "every patient has figures of folds alone; give `sonode train folds --refit`"
            )
        if self.datamodule.fold == ALL and self.settings.keep != "last":
            raise UserError("--keep loss: no patient is held out to choose by; give --keep last")
        if self.trainer.is_global_zero:
            for line in split_remarks(self.datamodule, self.model.heads):
                say(f"{self.datamodule.divided_by}: {line}")
        weights = Path(self.model.weights)
        self.seen_before = (
            seen_before(
                weights,
                self.datamodule,
                {it: self.datamodule.rows_of(it) for it in ("val", "test")},
            )
            if weights.is_file()
            else None
        )
        if self.trainer.is_global_zero:
            self.held.enter_context(resume.lock(out))
            self.held.callback(resume.forget_untrained, out, record)
        last = out / resume.RUN / resume.LAST
        if last.exists():
            if record.read_text() != text:
                raise UserError(
                    f"--out {out}: holds an interrupted run of another configuration or cohort; "
                    "give another folder, or the original settings to resume it"
                )
            done = self.datamodule.epochs_done = resume.epochs_of(last)
            if self.trainer.is_global_zero:
                say(f"resuming the interrupted run after epoch {done}")
                resume.keep_log(self.csv, done)
            # Not `settings`: what `fit` is called with is taken from the instantiated copy.
            arguments = self.config_init[str(self.subcommand)]
            arguments.ckpt_path, arguments.weights_only = str(last), True
        record.write_text(text)

    def record(self) -> str:
        """The cohort's digest and the settings: a run that goes on has the same."""
        digest = self.datamodule.cohort.sha256
        return f"# cohort sha256 {digest}\n{self.parser.dump(self.config)}"

    def after_fit(self) -> None:
        """Export the weights of the epoch that is kept, calibrated, with their card."""
        if not self.trainer.is_global_zero:
            return
        if not self.kept.best_model_path:
            raise UserError(
                "trainer: no epoch was finished, so there is no checkpoint; "
                "give max_epochs of at least 1, and no fast_dev_run"
            )
        epoch = export(
            *(self.kept.best_model_path, self.model, self.datamodule, self.trainer),
            *(self.settings.seed_everything, self.seen_before, self.settings.out / CHECKPOINT),
            keep=self.settings.keep,
            pooled=self.settings.pooled,
        )
        why = "the last" if self.settings.keep == "last" else "lowest validation loss"
        say(f"checkpoint of epoch {epoch + 1} ({why}): {self.settings.out / CHECKPOINT}")

    def before_validate(self) -> None:
        """Evaluate the exported checkpoint, not fresh weights."""
        self._evaluate_exported("val")

    def before_test(self) -> None:
        """Evaluate the exported checkpoint, not fresh weights."""
        self._evaluate_exported("test")

    def _evaluate_exported(self, part: Part) -> None:
        # Not Lightning's table of numbers without their counts: `after_test` has one.
        self.config_init[str(self.subcommand)].verbose = False
        load_exported(self.settings.out, self.model, self.datamodule, part)

    def after_validate(self) -> None:
        """Show the validation AUCs."""
        self._show_aucs("Validation part")

    def after_test(self) -> None:
        """Show the test AUCs and write them beside the checkpoint."""
        self._show_aucs("Test part")
        text = json.dumps([asdict(found) for found in self.model.aucs], indent=2)
        (self.settings.out / "test.json").write_text(text + "\n")

    def _show_aucs(self, title: str) -> None:
        rows = []
        for found in self.model.aucs:
            positive = "" if found.n_positive is None else str(found.n_positive)
            rows.append((found.head, found.on, str(found.n_images), positive, shown(found)))
        table(title, ("head", "images", "n", "positive", "ROC AUC"), rows)


def _several(given: Any) -> list[Any]:
    """What a setting that takes nothing, one thing or several was given."""
    if given is None or given is True:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]
