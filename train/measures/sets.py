"""The sets of rows that a head is measured on, its thresholds, and the probability judged there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from model_def.heads import HeadSpec, Hierarchy
from train.cohorts.labels import absent_given, measured_on
from train.statistics.binary import Bools, Floats, conditional


def operating_points(head: HeadSpec) -> dict[str, float]:
    """Name -> threshold: 0.5, those the card holds, and the one it is served at."""
    points = {"0.5": 0.5, **head.operating_points}
    return points if head.threshold in points.values() else {**points, "served": head.threshold}


class Subset(NamedTuple):
    """Rows that a head is measured on; by default all that have its label."""

    rows: pd.Series[bool]
    head: HeadSpec | None = None
    """The ancestor that is positive in all of them."""
    given: str | None = None
    """What is positive in all of them, as a target."""


def sets_of(head: HeadSpec, heads: Sequence[HeadSpec], frame: pd.DataFrame) -> dict[str, Subset]:
    """The sets that a head is measured on; the first is its primary one, see `measured_on`."""
    by_name = {spec.name: spec for spec in heads}
    known = frame[f"{head.name}_truth"].notna()

    def positive(column: str) -> pd.Series[bool]:
        return known & frame[column].fillna(False).astype(bool)

    chosen = {}
    if head.given is not None and head.given == absent_given(heads):
        chosen[f"{head.given} positive"] = Subset(positive(head.given), given=head.given)
    for name in measured_on(head, heads):
        above = by_name[name]
        chosen[f"{name} positive"] = Subset(positive(f"{name}_truth"), above, above.target)
    return {**chosen, "all": Subset(known)}


def judged_on(
    head: HeadSpec, hierarchy: Hierarchy, on: Subset, frame: pd.DataFrame
) -> tuple[Floats | None, str]:
    """The probability whose calibration a set can judge, in words; None with the reason.

    That is the reported one on what it speaks of. Where it is coherent with an ancestor's, their
    quotient is the conditional probability, which the ancestor's positives judge.
    """
    p_N = frame.loc[on.rows, f"{head.name}_probability"].to_numpy(np.float64)
    if on.given == head.given:
        return p_N, f"P({head.name}" + (f" given {head.given})" if head.given else ")")
    if hierarchy != "independent" and on.head is not None and on.head.given == head.given:
        above_N = frame.loc[on.rows, f"{on.head.name}_probability"].to_numpy(np.float64)
        return conditional(p_N, above_N).clip(0, 1), f"P({head.name} given {on.head.target})"
    of = f"lesions with {head.given} positive" if head.given else "all lesions"
    return None, f"the probability is about {of} only"


def truth_of_rows(rows: pd.DataFrame, head: HeadSpec) -> Bools:
    """Truth (N,) of a binary head in rows that have it."""
    found: Bools = rows[f"{head.name}_truth"].to_numpy(dtype=bool)
    return found


def probability_columns(head: HeadSpec) -> list[str]:
    """Those of a head in a table of predictions."""
    if head.categorical:
        return [f"{head.name}_probability_{label}" for label in head.labels]
    return [f"{head.name}_probability"]
