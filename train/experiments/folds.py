"""`sonode train folds`: networks by folds measure a recipe; one on every patient goes into service.

Each network is trained in a process of its own; the same command goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from model_def.checkpoint import CARD, ModelCard, read_card
from model_def.heads import keep_heads
from sonode.console import UserError, run_sonode, say
from train.cohorts.describe import table_one
from train.cohorts.folds import Texts, fold_names, folds_of
from train.evidence.fold_figures import FOLD
from train.evidence.report import show, write_evaluation
from train.experiments.fold_report import ASSUMES, epochs_of, figures_of, show_folds
from train.fitting import resume
from train.fitting.cli import CHECKPOINT, RECORD
from train.fitting.datamodule import ALL, label_matrix
from train.fitting.leakage import seen_before
from train.fitting.outliers import limit_of
from train.fitting.planned import FOLDS, Planned, check_classes, measured, planned, spoken
from train.fitting.pooled import Pooled, calibrated, read_held_out
from train.fitting.predictions import Predictions, facts_of, with_answers

EVIDENCE, POOLED, EPOCHS = "evidence", "pooled.json", "epochs.csv"
DEFAULTS = ("--data.folds=5", "--keep=last")  # a setting that is given comes after them


def train_folds(arguments: Sequence[str], *, refit: bool) -> None:
    """Train what is not trained yet; write the evidence, and with `refit` the last network.

    In OUT: `folds/` (a network each), `evidence/` (report, metrics and the pooled predictions), and
    with `refit` `checkpoint/`, the network on every patient.

    Raises:
        UserError: settings or cohort cannot be used, another command uses OUT, or a training fails;
            what is done stays and is not repeated.
    """
    given = [*DEFAULTS, *arguments]
    cli = planned(given)
    out, data = cli.settings.out, cli.datamodule
    if cli.settings.keep != "last":
        raise UserError(
            f"--keep {cli.settings.keep}: a fold's own patients would choose the epoch that they "
            "are scored with; folds keep the last one, and show what other epochs gave"
        )
    if data.folds is None or data.fold is not None:
        raise UserError(
            f"data.folds {data.folds}, data.fold {data.fold}: give data.folds alone; each fold is "
            "kept aside in turn"
        )
    if (out / CHECKPOINT).exists() and not (out / FOLDS).exists():
        raise UserError(f"--out {out}: holds a finished checkpoint; give another folder")
    fold_N = folds_of(data.cohort, data.folds, data.split_seed)
    check_classes(cli, fold_N)
    weights = Path(cli.model.weights)
    if weights.is_file():
        seen_before(weights, data, {"val": range(len(fold_N))})
    record, text = out / FOLDS / RECORD, cli.record()
    if record.exists() and record.read_text() != text:
        raise UserError(
            f"--out {out}: holds folds of another configuration or cohort; give another folder, or "
            "the original settings to go on"
        )
    with resume.lock(out / FOLDS):
        record.write_text(text)
        work = _Work(cli, given, fold_N)
        work.say_plan(refit=refit)
        for number, name in enumerate(work.names, start=1):
            work.train(work.folder(number), name, f"fold {name} ({number} of {len(work.names)})")
        found, pooled = _pooled(cli, work)
        evidence = out / EVIDENCE
        metrics = write_evaluation(found, evidence, seed=cli.settings.seed_everything)
        show(metrics, f"Out-of-fold predictions of {len(work.names)} networks")
        show_folds(metrics)
        logs = {
            name: work.folder(number) / resume.RUN / "csv" / "metrics.csv"
            for number, name in enumerate(work.names, start=1)
        }
        epochs_of(logs, metrics).to_csv(out / FOLDS / EPOCHS, index=False)
        say(f"report: {evidence / 'report.html'}")
        say(f"predictions of networks that never saw the patient: {evidence}/predictions.parquet")
        if not refit:
            say("no network was trained on all patients: `--refit` with the same command does it")
            return
        figures = figures_of(metrics, len(work.names))
        target, partial = out / FOLDS / POOLED, out / FOLDS / f".{POOLED}.partial"
        partial.write_text(pooled.model_copy(update={"figures": figures}).model_dump_json(indent=1))
        partial.replace(target)
        work.train(out, ALL, "all patients", f"--pooled={target}")
        say(f"{out / CHECKPOINT}: {figures['statement']}")


class _Work:
    """The networks to train: settings, folds, and where each lies."""

    def __init__(self, cli: Planned, arguments: Sequence[str], fold_N: Texts) -> None:
        self.cli, self.arguments, self.fold_N = cli, list(arguments), fold_N
        self.names = fold_names(fold_N)
        self.out: Path = cli.settings.out
        self.epochs = int(cli.settings.trainer.max_epochs)

    def folder(self, number: int) -> Path:
        """Of the fold of that number, from 1; its name may be any text."""
        return self.out / FOLDS / str(number)

    def say_plan(self, *, refit: bool) -> None:
        """Print what is trained, what decides, and how long it takes by steps measured here."""
        data = self.cli.datamodule
        everyone = data.cohort.table["patient_id"]
        sizes = [everyone[self.fold_N == name].nunique() for name in self.names]
        say(
            f"plan: {len(self.names)} folds of {' '.join(map(str, sizes))} patients; a network "
            f"for each is trained on the others, {self.epochs} epochs"
        )
        say("epoch to keep: the last; no patient who is scored chooses anything in training")
        if refit:
            say(
                f"then one network is trained on all {everyone.nunique()} patients for as many "
                "epochs, so that it sees each image as often as the folds did; its temperatures "
                "and thresholds come from the folds"
            )
        folders = [self.folder(number) for number in range(1, len(self.names) + 1)]
        aside = [int((self.fold_N == name).sum()) for name in self.names]
        if refit:
            folders, aside = [*folders, self.out], [*aside, 0]
        left = [self._epochs_left(folder) for folder in folders]
        if not any(left):
            say("time: none; all of it is done")
            return
        step, image = measured(self.cli)
        batch = data.batch_size * self.cli.trainer.world_size
        seconds = sum(
            epochs * (max(1, (len(self.fold_N) - kept) // batch) * step + kept * image)
            for epochs, kept in zip(left, aside, strict=True)
        )
        say(
            f"time: about {spoken(seconds)}, by steps of {step:.2f} s measured here; "
            f"{left.count(0)} of {len(left)} networks are done"
        )

    def _epochs_left(self, folder: Path) -> int:
        if (folder / CHECKPOINT / CARD).is_file():
            return 0
        last = folder / resume.RUN / resume.LAST
        return self.epochs - (resume.epochs_of(last) if last.exists() else 0)

    def train(self, folder: Path, fold: str, what: str, *more: str) -> None:
        """`sonode train fit` in a process of its own, so that no run inherits another's state."""
        if not (folder / CHECKPOINT / CARD).is_file():
            say(f"training: {what}")
            flags = [f"--data.fold={fold}", f"--out={folder}", *more]
            flags.append(f"--trainer.precision={self.cli.settings.trainer.precision}")
            if code := run_sonode(["train", "fit", *self.arguments, *flags]):
                raise UserError(
                    f"{what}: its training ended with exit code {code}, see above; the same "
                    "command goes on from there"
                )
        for state in (folder / resume.RUN).glob("*.ckpt"):  # what resuming needed
            state.unlink()


def _pooled(cli: Planned, work: _Work) -> tuple[Predictions, Pooled]:
    """Each row as the network scored it that never saw the patient, calibrated together."""
    data, model = cli.datamodule, cli.model
    folders = [work.folder(number) / CHECKPOINT for number in range(1, len(work.names) + 1)]
    cards = [read_card(folder) for folder in folders]
    names = [head.name for head in cards[0].heads]
    for name, card in zip(work.names, cards, strict=True):
        if (own := [head.name for head in card.heads]) != names:
            raise UserError(
                f"fold {name}: its network has the heads {', '.join(own)}, and that of fold "
                f"{work.names[0]} {', '.join(names)}; take the others out of model.heads"
            )
    model.heads = keep_heads(model.heads, names)
    aside = [read_held_out(folder) for folder in folders]
    row_N = np.concatenate([its.rows for its in aside]).astype(int)
    order = np.argsort(row_N)
    rows = row_N[order]
    logits_NL = torch.cat([its.logits_NL for its in aside])[torch.from_numpy(order)]
    labels_NK = label_matrix(data.cohort.table, model.heads)[torch.from_numpy(rows)]
    patient_N = data.cohort.table["patient_id"].iloc[rows].tolist()
    limit = limit_of(np.concatenate([its.outlier_N for its in aside])[order], patient_N)
    pooled = calibrated(model, data, logits_NL, labels_NK, rows.tolist(), limit)
    frame = with_answers(
        facts_of(data.cohort, rows), labels_NK, logits_NL, pooled.heads, model.hierarchy
    ).assign(**{FOLD: work.fold_N[rows]})
    found = Predictions(
        frame=frame,
        heads=pooled.heads,
        hierarchy=model.hierarchy,
        about=_about(cli, work, frame, cards[0], pooled),
        characteristics=table_one(data.cohort),
    )
    return found, pooled


def _about(
    cli: Planned, work: _Work, frame: pd.DataFrame, card: ModelCard, pooled: Pooled
) -> dict[str, Any]:
    cohort = cli.datamodule.cohort
    own = ("cohort", "labels", "best_epoch", "temperatures", "score_reference")  # of one fold
    return {
        "part": "out-of-fold",
        "statement": (
            f"predictions of {len(work.names)} networks, each of the patients of one fold, which "
            f"it never saw. {ASSUMES}"
        ),
        "cohort": {
            "name": cohort.name,
            "sha256": cohort.sha256,
            "synthetic": cohort.synthetic,
            "patient_ids": cohort.patient_ids,
            "patients": int(frame["patient_id"].nunique()),
            "images": len(frame),
        },
        "folds": {
            "folds": cli.datamodule.folds,
            "seed": cli.datamodule.split_seed,
            "names": work.names,
        },
        "model": card.model_copy(update={"heads": pooled.heads}).model_dump(
            mode="json", exclude={"training"}
        ),
        "training": {
            **{name: fact for name, fact in card.training.items() if name not in own},
            "temperatures": pooled.temperatures,
        },
    }
