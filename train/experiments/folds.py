"""`sonode train folds`: networks by folds measure a recipe; one on every patient goes into service.

Each network is trained in a process of its own; the same command goes on where it was interrupted.
With several members, a fold is scored by the mean logit of as many networks as go into service.

Shapes in names: N rows of the cohort, M members, L logits of all heads.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from model_def.checkpoint import CARD, ModelCard, read_card
from model_def.heads import keep_heads
from sonode.console import UserError, say
from sonode.files.atomic import write_whole
from train.cohorts.describe import table_one
from train.cohorts.folds import folds_of
from train.cohorts.labels import label_matrix
from train.data.leakage import seen_before
from train.evidence.report import show, write_evaluation
from train.experiments.fold_networks import REFITS, Networks, networks
from train.experiments.fold_report import (
    ASSUMES,
    epochs_of,
    figures_of,
    show_folds,
    show_members,
)
from train.fitting.calibration.outliers import limit_of
from train.fitting.members import check_alike, join
from train.fitting.pooled import Pooled, calibrated, read_held_out
from train.fitting.predictions import Predictions, facts_of, with_answers
from train.measures.fold_figures import FOLD
from train.running import resume
from train.running.cli import RECORD
from train.running.exported import CHECKPOINT
from train.running.planned import FOLDS, Planned, check_classes, planned

EVIDENCE, POOLED, EPOCHS, MEMBERS = "evidence", "pooled.json", "epochs.csv", "members.csv"
SERVED = 3  # networks: what a single one says depends on its seed (docs/real-images.md)
DEFAULTS = ("--data.folds=5", "--keep=last")  # a setting that is given comes after them


def train_folds(arguments: Sequence[str], *, refit: bool, members: int | None = None) -> None:
    """Train what is not trained yet; write the evidence, and with `refit` the last network.

    In OUT: `folds/` (the networks), `evidence/` (report, metrics and the pooled predictions), and
    with `refit` `checkpoint/`, the network on every patient. `members`: how many networks, of
    seeds that follow the one given, are averaged in each fold and in the last one; 3 with `refit`
    and 1 without, unless it is given.

    Raises UserError: settings or cohort cannot be used, another command uses OUT, or a training
    fails; what is done stays and is not repeated.
    """
    if members is None:
        members = SERVED if refit else 1
    given = [*DEFAULTS, *arguments]
    cli = planned(given)
    out, data = cli.settings.out, cli.datamodule
    _check(cli, members)
    assert data.folds is not None
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
        work = Networks(cli, given, fold_N, members)
        work.say_plan(refit=refit)
        in_folds = [job for jobs in work.of_folds for job in jobs]
        for job in in_folds:
            work.train(job)
        found, logits_MNL, pooled = _pooled(cli, work)
        evidence = out / EVIDENCE
        metrics = write_evaluation(found, evidence, seed=cli.settings.seed_everything)
        show(metrics, f"Out-of-fold predictions of {len(work.names)} folds")
        show_folds(metrics)
        if members > 1:
            show_members(found, logits_MNL).to_csv(out / FOLDS / MEMBERS, index=False)
        logs = {job.what: job.out / resume.RUN / "csv" / "metrics.csv" for job in in_folds}
        epochs_of(logs, metrics).to_csv(out / FOLDS / EPOCHS, index=False)
        say(f"report: {evidence / 'report.html'}")
        say(f"predictions of networks that never saw the patient: {evidence}/predictions.parquet")
        if refit:
            figures = figures_of(metrics, len(work.names), members)
            _refit(work, pooled.model_copy(update={"figures": figures}))
            say(f"{out / CHECKPOINT}: {figures['statement']}")
        else:
            say(
                "no network was trained on all patients: `--refit` with the same command does it, "
                f"with {SERVED} networks unless `--members` is given"
            )


def _check(cli: Planned, members: int) -> None:
    out, data = cli.settings.out, cli.datamodule
    if members < 1:
        raise UserError(f"--members {members}: give 1 or more; 3 to 5 are usual")
    if cli.settings.keep != "last":
        raise UserError(
            f"--keep {cli.settings.keep}: a fold's own patients would choose the epoch that they "
            "are scored with; folds keep the last one, and show what other epochs gave"
        )
    if cli.trainer.early_stopping_callback is not None:
        raise UserError(
            "trainer.callbacks: early stopping would let a fold's own patients choose when its "
            "training ends; leave it out"
        )
    if data.folds is None or data.fold is not None:
        raise UserError(
            f"data.folds {data.folds}, data.fold {data.fold}: give data.folds alone; each fold is "
            "held out in turn"
        )
    done = out / CHECKPOINT
    if done.exists() and not (out / FOLDS).exists():
        raise UserError(f"--out {out}: holds a finished checkpoint; give another folder")
    if done.exists() and (its := read_card(done).members) != members:
        raise UserError(
            f"--members {members}: {done} has {its}; give --members {its}, or another folder"
        )


def _refit(work: Networks, pooled: Pooled) -> None:
    """Train on every patient what goes into service."""
    out: Path = work.cli.settings.out
    write_whole(target := out / FOLDS / POOLED, pooled.model_dump_json(indent=1))
    if not (out / CHECKPOINT / CARD).is_file():
        for job in work.of_refit:
            work.train(job, f"--pooled={target}")
        if len(work.of_refit) > 1:
            join([job.checkpoint for job in work.of_refit], pooled, out / CHECKPOINT)
    # What is averaged is in the checkpoint; its temperatures are of none of them alone.
    shutil.rmtree(out / REFITS, ignore_errors=True)


def _pooled(cli: Planned, work: Networks) -> tuple[Predictions, torch.Tensor, Pooled]:
    """Each row by the networks that never saw the patient, calibrated together.

    The logits (M, N, L) are each member's own, in the order of the rows.
    """
    data, model = cli.datamodule, cli.model
    for jobs in work.of_folds:
        check_alike({f"{FOLDS}/{job.out.name}": read_card(job.checkpoint) for job in jobs})
    cards = [read_card(jobs[0].checkpoint) for jobs in work.of_folds]
    names = [head.name for head in cards[0].heads]
    for name, card in zip(work.names, cards, strict=True):
        if (own := [head.name for head in card.heads]) != names:
            raise UserError(
                f"fold {name}: its network has the heads {', '.join(own)}, and that of fold "
                f"{work.names[0]} {', '.join(names)}; take the others out of model.heads"
            )
    model.heads = keep_heads(model.heads, names)
    aside = [[read_held_out(job.checkpoint) for job in jobs] for jobs in work.of_folds]
    row_N = np.concatenate([its[0].rows for its in aside]).astype(int)
    order = np.argsort(row_N)
    rows = row_N[order]
    logits_MNL = torch.cat([torch.stack([it.logits_NL for it in its]) for its in aside], dim=1)
    logits_MNL = logits_MNL[:, torch.from_numpy(order)]
    logits_NL = logits_MNL.mean(dim=0)
    labels_NK = label_matrix(data.cohort.table, model.heads)[torch.from_numpy(rows)]
    patient_N = data.cohort.table["patient_id"].iloc[rows].tolist()
    # The first members', as in the checkpoint of all patients (see `model_def.outliers`).
    distance_N = np.concatenate([its[0].outlier_N for its in aside])[order]
    limit = limit_of(distance_N, patient_N, model.false_alarms)
    pooled = calibrated(model, data, logits_NL, labels_NK, rows.tolist(), limit)
    frame = with_answers(
        facts_of(data.cohort, rows),
        labels_NK,
        logits_NL,
        pooled.heads,
        model.hierarchy,
        logits_MNL if len(work.seeds) > 1 else None,
    ).assign(**{FOLD: work.fold_N[rows]})
    if limit.limit is not None:
        frame = frame.assign(
            out_of_distribution=[limit.exceeded_by(its) for its in distance_N],
            out_of_distribution_distance=distance_N,
        )
    found = Predictions(
        frame=frame,
        heads=pooled.heads,
        hierarchy=model.hierarchy,
        about=_about(cli, work, frame, cards[0], pooled),
        characteristics=table_one(data.cohort),
    )
    return found, logits_MNL, pooled


def _about(
    cli: Planned, work: Networks, frame: pd.DataFrame, card: ModelCard, pooled: Pooled
) -> dict[str, Any]:
    cohort = cli.datamodule.cohort
    members = len(work.seeds)
    # Of one fold, or of one member.
    own = ["cohort", "labels", "best_epoch", "temperatures", "score_reference"]
    own += ["seed"] if members > 1 else []
    return {
        "part": "out-of-fold",
        "statement": (
            f"predictions of {len(work.names)} folds, each by {networks(members)}"
            f"{', averaged,' if members > 1 else ''} that never saw its patients. {ASSUMES}"
        ),
        "cohort": {
            **cohort.about,
            "patients": int(frame["patient_id"].nunique()),
            "images": len(frame),
        },
        "folds": {
            "folds": cli.datamodule.folds,
            "seed": cli.datamodule.split_seed,
            "names": work.names,
        },
        "model": card.model_copy(
            update={
                "heads": pooled.heads,
                "members": members,
                "out_of_distribution": pooled.out_of_distribution,
            }
        ).model_dump(mode="json", exclude={"training"}),
        "training": {
            **{name: fact for name, fact in card.training.items() if name not in own},
            "temperatures": pooled.temperatures,
            **({"seeds": list(work.seeds)} if members > 1 else {}),
        },
    }
