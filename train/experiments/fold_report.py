"""What folds measured: on the terminal, and for the card of the network on every patient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from model_def.heads import logit_slices, probabilities
from sonode.console import counted, table
from sonode.measure_text import number, with_interval
from train.fitting.predictions import Predictions
from train.measures.fold_figures import UNITS
from train.measures.measure import Json
from train.measures.sets import sets_of, truth_of_rows
from train.measures.units import any_of, score_of, unit_codes
from train.statistics.binary import roc_auc, value

ASSUMES = (
    "Temperatures, thresholds, label sets and the out-of-distribution limit come from the "
    "predictions of the folds' networks, which assumes that the logits and distances of the "
    "network on all patients are distributed as theirs. They were chosen on all of those "
    "predictions together, so calibration and operating points look a little better there than "
    "they are; AUCs do not."
)


def figures_of(metrics: Json, folds: int, members: int) -> dict[str, Any]:
    """What the card of the network on every patient says of its evidence."""
    found = {
        name: {
            "on": of["on"],
            **{
                unit: {
                    "pooled": {
                        key: metrics["heads"][name]["sets"][of["on"]][unit]["roc_auc"][key]
                        for key in ("value", "low", "high")
                    },
                    "mean_of_folds": of[unit]["mean"],
                    "by_fold": {its["fold"]: its["roc_auc"]["value"] for its in of[unit]["folds"]},
                }
                for unit in UNITS
            },
        }
        for name, of in metrics["folds"].items()
    }
    return {
        "statement": (
            f"trained on all {counted(metrics['patients'], 'patient')}; "
            f"figures are of {folds} folds"
            + (f" of {members} networks each, as many as here" if members > 1 else "")
        ),
        "assumes": ASSUMES,
        "intervals": (
            "pooled: bootstrap of patients, the networks as they are; mean_of_folds: Nadeau and "
            "Bengio 2003, for training sets that share patients"
        ),
        "roc_auc": found,
    }


def show_folds(metrics: Json) -> None:
    """Print each fold's AUC and their mean."""
    rows = []
    for name, of in metrics["folds"].items():
        for unit in UNITS:
            rows += [
                (name, unit, its["fold"], str(its["rows"]), with_interval(its["roc_auc"]))
                for its in of[unit]["folds"]
            ]
            rows.append((name, unit, "mean", "", with_interval(of[unit]["mean"])))
    table("By fold", ("head", "per", "fold", "n", "ROC AUC (95 %)"), rows)


def show_members(found: Predictions, logits_MNL: torch.Tensor) -> pd.DataFrame:
    """ROC AUC by how many of the M members are averaged, as the mean over all choices of them.

    Of the binary heads, on what each is first judged on; `logits_MNL` are of `found`'s rows.
    """
    rows = []
    for count in range(1, len(logits_MNL) + 1):
        some = [list(its) for its in itertools.combinations(range(len(logits_MNL)), count)]
        answers = [
            probabilities(logits_MNL[its].mean(dim=0), found.heads, found.hierarchy).numpy()
            for its in some
        ]
        for head in found.heads:
            if head.categorical:
                continue
            on, its = next(iter(sets_of(head, found.heads, found.frame).items()))
            chosen = found.frame[its.rows]
            truth_N = truth_of_rows(chosen, head)
            place = logit_slices(found.heads)[head.name].start
            for unit in UNITS:
                code_N = unit_codes(chosen, unit)
                truth_U = any_of(truth_N, code_N)
                aucs = [
                    value(roc_auc, truth_U, score_of(p_NL[its.rows, place], code_N, "mean"))
                    for p_NL in answers
                ]
                known = [auc for auc in aucs if auc is not None]  # undefined for one is so for all
                mean = sum(known) / len(known) if known else None
                rows.append((head.name, on, unit, count, len(some), mean))
    columns = ("head", "on", "per", "members", "choices", "roc_auc")
    shown = [(head, unit, str(count), number(auc)) for head, _, unit, count, _, auc in rows]
    table(
        "By members averaged: ROC AUC of all folds, mean over all choices of so many",
        ("head", "per", "members", "ROC AUC"),
        shown,
    )
    return pd.DataFrame(rows, columns=columns)


def epochs_of(logs: Mapping[str, Path], metrics: Json) -> pd.DataFrame:
    """Validation loss and AUCs of each fold after each epoch; prints what other rules had kept.

    `logs`: the CSV that the training of each fold wrote.
    """
    read = []
    for name, path in logs.items():
        log = pd.read_csv(path)
        log = log[log["val_calibrated_loss"].notna()].assign(fold=name)
        read.append(log.drop(columns=["step", "train_loss"], errors="ignore"))
    found = pd.concat(read, ignore_index=True).dropna(axis="columns", how="all")
    aucs = {
        name: column
        for name, of in metrics["folds"].items()
        if (column := f"val_auc/{name}/{of['on'].replace(' ', '_')}") in found
    }
    rules = {"last (kept)": found["epoch"], "lowest loss": -found["val_calibrated_loss"]}
    rules |= {f"highest {name} AUC": found[column] for name, column in aucs.items()}
    rows = []
    for rule, worth in rules.items():
        chosen = found.loc[worth.dropna().groupby(found["fold"], sort=False).idxmax()]
        # Of all folds, or of none: in a fold of one class there is no AUC.
        chosen = chosen.set_index("fold").reindex(list(logs))
        epochs = " ".join("–" if math.isnan(it) else str(int(it) + 1) for it in chosen["epoch"])
        means = [chosen[auc].mean(skipna=False) for auc in aucs.values()]
        shown = ("undefined" if math.isnan(mean) else f"{mean:.3f}" for mean in means)
        rows.append((rule, epochs, *shown))
    table(
        "What each rule would keep, and the folds' mean AUC per image there. A rule that looks at "
        "the patients it is judged on looks better than it is.",
        ("rule", "epoch of each fold", *aucs),
        rows,
    )
    return found
