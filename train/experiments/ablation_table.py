"""The table of an ablation: mean and SD over the seeds of each variant, and p-values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sonode.console import table
from sonode.measure_text import p_value

REFERENCE = "multi-task + HL"  # the paper's; p-values are against it
MEASURES = ("malignancy_auc", "alnm_auc", "type_1", "type_2")
_ROUNDING = 1e-12  # AUCs and shares that differ at all differ by 1 over twice all pairs, or more


def summarise(runs: pd.DataFrame, variants: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Of each variant's seeds: mean, SD, and p against `REFERENCE` with the same seeds."""
    reference = runs[runs["variant"] == REFERENCE].set_index("seed")
    for variant in variants:
        own = runs[runs["variant"] == variant].set_index("seed")
        row: dict[str, Any] = {"variant": variant, "seeds": len(own)}
        for name in MEASURES:
            values = own[name].astype(float)
            known = values.dropna().tolist()
            row[f"{name}_mean"] = values.mean()
            row[f"{name}_sd"] = statistics.stdev(known) if len(known) > 1 else math.nan
            row[f"{name}_p"] = paired_p(values, reference[name].astype(float))
        yield row


def paired_p(values: pd.Series, reference: pd.Series) -> float | None:
    """Student's paired t-test over the seeds; None where it says nothing.

    Differences that are all the same have no variance, but as floats they differ in their last
    digits (0.8 - 0.7 and 0.9 - 0.8), and a t-test of those would find them significant.
    """
    difference = (values - reference).dropna()
    if len(difference) < 2 or np.ptp(difference) < _ROUNDING:
        return None
    return float(stats.ttest_1samp(difference, 0).pvalue)


def show(summary: pd.DataFrame) -> None:
    """Print the table."""
    columns = ("variant", "malignancy AUC", "p", "ALNM AUC", "p", "type 1", "p", "type 2", "p")
    rows = []
    for row in summary.itertuples(index=False):
        cells = [str(row.variant)]
        for name in MEASURES:
            mean, sd = getattr(row, f"{name}_mean"), getattr(row, f"{name}_sd")
            percent = name.startswith("type")
            scale, digits = (100, 1) if percent else (1, 3)
            unit = " %" if percent else ""
            cells.append(
                "–"
                if pd.isna(mean)
                else f"{scale * mean:.{digits}f} ± {scale * sd:.{digits}f}{unit}"
            )
            p = getattr(row, f"{name}_p")
            cells.append("–" if pd.isna(p) else p_value(p))
        rows.append(cells)
    table(f"Test part, mean ± SD over seeds; p against {REFERENCE}", columns, rows)
