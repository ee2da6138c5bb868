"""What folds measured: on the terminal, and for the card of the network on every patient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sonode.console import table
from train.evidence.fold_figures import UNITS
from train.evidence.measures import Json

ASSUMES = (
    "Temperatures, thresholds, label sets and the out-of-distribution limit come from what the "
    "folds' networks said, which assumes that the logits and distances of the network on all "
    "patients are distributed as theirs. They were chosen on "
    "all of those predictions together, so calibration and operating points look a little better "
    "there than they are; AUCs do not."
)


def figures_of(metrics: Json, folds: int) -> dict[str, Any]:
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
            f"trained on all {metrics['patients']} patients; figures are of {folds} folds"
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

    def text(found: Json) -> str:
        if found["value"] is None:
            return "undefined"
        interval = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
        return f"{found['value']:.3f}{interval}"

    rows = []
    for name, of in metrics["folds"].items():
        for unit in UNITS:
            rows += [
                (name, unit, its["fold"], str(its["rows"]), text(its["roc_auc"]))
                for its in of[unit]["folds"]
            ]
            rows.append((name, unit, "mean", "", text(of[unit]["mean"])))
    table("By fold", ("head", "per", "fold", "n", "ROC AUC (95 %)"), rows)


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
        epochs = " ".join(str(int(epoch) + 1) for epoch in chosen["epoch"])
        rows.append((rule, epochs, *(f"{chosen[auc].mean():.3f}" for auc in aucs.values())))
    table(
        "What each rule would keep, and the folds' mean AUC per image there. A rule that looks at "
        "the patients it is judged on looks better than it is.",
        ("rule", "epoch of each fold", *aucs),
        rows,
    )
    return found
