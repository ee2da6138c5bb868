"""`sonode versus`: two evaluations of the same images, their AUCs and rates side by side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from sonode.console import UserError, counted, say, table
from sonode.defaults import BOOTSTRAP_DRAWS
from sonode.files.metrics import METRICS, read_metrics
from sonode.files.parquet import ROI_COLUMNS
from sonode.measure_text import number, p_value, with_interval
from train.cohorts.labels import primary_sets
from train.comparing.auc_difference import (
    Versus,
    compare_head,
    paired_sets,
    read_score,
    scores_of,
)
from train.comparing.paired import paired_rates
from train.measures.measure import Json, Resampling
from train.measures.units import Aggregation, distinct_units

KEYS = ["patient_id", "lesion_id", "image"]
SHOWN = ("0.5", "served")
"""Operating points that the terminal shows."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What `versus` gives; a difference is the first minus the second."""

    aggregation: Aggregation
    """The score of a lesion or patient with several images."""
    aucs: list[Versus]
    rates: list[Json]
    """Sensitivity and specificity of each binary head at each operating point that both have, by
    name, each at its own threshold: see `paired_rates`."""


def versus(
    first: Path,
    second: Path,
    *,
    resamples: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
    aggregation: Aggregation = "mean",
) -> Compared:
    """Compare every head that both folders' predictions.parquet have; the others are reported.

    Lesions and patients are left out where each has one image, and lesions where each patient has
    one.

    Raises UserError: no predictions, faulty ones, other images, boxes or labels, or no head in
    common.
    """
    one, two = (_read(folder) for folder in (first, second))
    if one[KEYS].to_numpy().tolist() != two[KEYS].to_numpy().tolist():
        raise UserError(
            f"{first} and {second}: predictions of different images ({len(one)} and {len(two)}); "
            "make both on the same cohort, part and split"
        )
    rois = [frame[list(ROI_COLUMNS)].to_numpy(np.float64, na_value=np.nan) for frame in (one, two)]
    if moved := int((rois[0] != rois[1]).any(axis=1).sum()):
        raise UserError(
            f"{first} and {second}: another RoI in {moved} of {counted(len(one), 'image')}; make "
            "both on the same boxes"
        )
    ours, theirs = scores_of(one), scores_of(two)
    for folder, own, other in ((first, ours, theirs), (second, theirs, ours)):
        if alone := [head for head in own if head not in other]:
            say(f"{folder} alone has {', '.join(alone)}: not compared")
    shared = [head for head in ours if head in theirs]
    if not shared:
        raise UserError(f"{first} and {second}: no head in common")
    sets = {**_sets(second), **_sets(first)}
    points = [_points(folder) for folder in (first, second)]
    how = Resampling(resamples=resamples, seed=seed)
    aucs, rates = [], []
    for score in shared:
        name = score.partition("=")[0]
        primary = sets.get(name)
        for unit in distinct_units(one):
            aucs += compare_head(score, one, two, primary, how, unit=unit, aggregation=aggregation)
            if score != name:
                continue
            for on, rows_N in paired_sets(score, one, two, primary, report=False).items():
                scores = [read_score(frame, score)[1][rows_N] for frame in (one, two)]
                truth_N = read_score(one, score)[0][rows_N] == 1
                first_at, second_at = (its.get(name, {}) for its in points)
                for point in [it for it in first_at if it in second_at]:
                    pair = first_at[point], second_at[point]
                    found = paired_rates(one[rows_N], truth_N, scores, pair, unit, aggregation, how)
                    rates += [
                        {"head": name, "on": on, "per": unit, "point": point, "rate": rate, **its}
                        for rate, its in found.items()
                    ]
    return Compared(aggregation=aggregation, aucs=aucs, rates=rates)


def show(found: Compared) -> None:
    """Print both tables."""
    columns = ["head", "set", "per", "n", "positive", "first", "second", "difference (95 %)", "p"]
    rows = []
    for item in found.aucs:
        difference = {**vars(item), "value": item.difference}
        numbers = [item.per, str(item.n), str(item.n_positive), number(item.first)]
        numbers += [number(item.second), with_interval(difference, sign=True)]
        numbers += [p_value(item.p_value), p_value(item.delong_p)]
        rows.append((item.head, item.on, *numbers))
    table(
        "ROC AUC, patients drawn with replacement; ¹ DeLong, rows independent",
        [*columns, "p ¹"],
        rows,
    )
    primary = {item.head: item.on for item in found.aucs}  # the last of each head
    rows = [
        (
            *(its["head"], its["on"], its["per"], f"{its['rate']} at {its['point']}"),
            *(str(its["rows"]), number(its["first"]), number(its["second"])),
            with_interval(its["difference"], sign=True),
            *(p_value(its["difference"].get("p_value")), p_value(its["mcnemar_p"])),
        )
        for its in found.rates
        if its["point"] in SHOWN and its["on"] == primary[its["head"]]
    ]
    columns = [
        "head",
        "set",
        "per",
        "rate",
        "n",
        "first",
        "second",
        "difference (95 %)",
        "p",
        "p ²",
    ]
    table("Each at its own threshold; ² McNemar, rows independent; p are unadjusted", columns, rows)
    say(
        f"The score of a lesion or patient is the {found.aggregation} over its images; left out "
        "where each has one image, and lesions where each patient has one."
    )


def write(found: Compared, path: Path) -> None:
    """Write the comparison as JSON."""
    text = json.dumps(asdict(found), indent=2, allow_nan=False)
    path.write_text(text + "\n")


def _sets(folder: Path) -> dict[str, tuple[str, str]]:
    """The primary sets of the heads that were evaluated."""
    return primary_sets(_heads(folder))


def _points(folder: Path) -> dict[str, dict[str, float]]:
    """The operating points of each binary head, with the one it is served at."""
    return {
        name: {**its["operating_points"], "served": its["threshold"]}
        for name, its in _heads(folder).items()
    }


def _heads(folder: Path) -> dict[str, Json]:
    heads: dict[str, Json] = read_metrics(folder / METRICS)["heads"]
    return heads


def _read(folder: Path) -> pd.DataFrame:
    path = folder / "predictions.parquet"
    if not path.is_file():
        raise UserError(
            f"{folder}: has no predictions.parquet; give OUT of `sonode evaluate` or "
            "`sonode radiomics`"
        )
    try:
        frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
        absent = [column for column in (*KEYS, *ROI_COLUMNS) if column not in frame]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a Parquet table; run the evaluation again") from error
    if absent:
        raise UserError(
            f"{path}: not sonode's predictions (no column {', '.join(absent)}); evaluate again"
        )
    if twice := int(frame.duplicated([*KEYS, *ROI_COLUMNS]).sum()):
        raise UserError(f"{path}: rows are there twice ({twice}); evaluate again")
    for score in scores_of(frame):
        try:
            _, p_N = read_score(frame, score)
        except (TypeError, ValueError):
            p_N = np.full(len(frame), np.nan)
        if wrong := int((~((p_N >= 0) & (p_N <= 1))).sum()):
            raise UserError(
                f"{path}: {score}: {wrong} of {len(frame)} probabilities are not numbers in 0..1; "
                "evaluate again"
            )
    return frame
