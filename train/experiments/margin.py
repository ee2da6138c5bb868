"""The search for margin and weight of the hierarchical loss, on the validation part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from train.experiments.ablation import HIERARCHICAL, runs_of
from train.experiments.ablation_table import MEASURES
from train.fitting.losses import LossSettings


def search_margin(
    cohort_folder: Path,
    out: Path,
    margins: Sequence[float],
    *,
    seeds: int,
    config: Path,
    weights: Sequence[float] = (LossSettings().hierarchy_weight,),
    more: Sequence[str] = (),
) -> pd.DataFrame:
    """The paper's grid search of the hierarchical loss, on the validation part alone.

    `weights`: of the loss in the total, the paper's lambda. `more`: flags of every run.

    Returns one row per margin and weight, the best first: by mean validation AUC of ALNM, which the
    loss is there for; at a tie the smaller margin, then weight. Also written as margins.csv.

    Raises UserError: as `ablate`.
    """
    grid = {
        f"margin {margin:g}"
        + (f", weight {weight:g}" if weight != LossSettings().hierarchy_weight else ""): (
            margin,
            weight,
        )
        for margin in margins
        for weight in weights
    }
    variants = {
        name: [
            *HIERARCHICAL,
            *more,
            f"--model.loss.hierarchy_weight={weight:g}",
            f"--model.loss.margin={margin:g}",
        ]
        for name, (margin, weight) in grid.items()
    }
    runs = runs_of(cohort_folder, out, variants, seeds=seeds, config=config, part="val")
    for place, name in enumerate(("margin", "weight")):
        runs[name] = runs["variant"].map({it: pair[place] for it, pair in grid.items()})
    found = runs.groupby(["margin", "weight"], as_index=False)[list(MEASURES)].mean()
    found = found.sort_values(
        ["alnm_auc", "margin", "weight"], ascending=[False, True, True], ignore_index=True
    )
    found.to_csv(out / "margins.csv", index=False)
    return found
