"""How a column says which label a row has: yes and no, 0 and 1, a count with a bound, or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from model_def.heads import HeadSpec, Hierarchy, ancestors
from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS

ParentNegative = Literal["mask", "negative"]
NOT_LABELS = ("patient_id", "lesion_id", "image", *ROI_COLUMNS, "pixels_sha256")


class UnknownLabelsError(ValueError):
    """A column holds other things than the labels; `others` are the first of them, as text."""

    def __init__(self, others: Sequence[str]) -> None:
        super().__init__(f"unknown labels: {', '.join(others)}")
        self.others = list(others)


def label_codes(
    column: pd.Series, labels: Sequence[str], bound: int | None = None
) -> npt.NDArray[np.float32]:
    """The place (N,) of each row's label in `labels`, NaN where it is missing.

    `column` is of a nullable type (of Arrow, say); a NaN in it is missing. `bound`: of a column of
    counts; from there on it is the second label. Counts, and 0 and 1 of two labels, may be text.

    Raises UnknownLabelsError: the column holds other labels, or no counts.
    """
    if pd.api.types.is_float_dtype(column):  # a NaN would be a number, below any bound
        number_N = column.to_numpy(dtype=np.float64, na_value=np.nan)
        column = pd.Series(pd.array(number_N, dtype="Float64"), column.index)
    if column.isna().all():  # of any type: nothing says what it would have held
        return np.full(len(column), np.nan, np.float32)
    column = _as_numbers(column, labels, bound)
    if bound is not None:
        if not pd.api.types.is_numeric_dtype(column):
            raise UnknownLabelsError(_first(column))
        found = column >= bound
    elif pd.api.types.is_bool_dtype(column):
        found = column
    elif pd.api.types.is_numeric_dtype(column) and len(labels) == 2:
        if not (known := column.isna() | column.isin([0, 1])).all():
            raise UnknownLabelsError(_first(column[~known]))
        found = column
    else:
        known = column.isna() | column.astype(str).isin(labels)
        if not known.all():
            raise UnknownLabelsError(_first(column[~known]))
        found = column.astype(str).map({label: place for place, label in enumerate(labels)})
    return np.asarray(found.to_numpy(dtype=np.float32, na_value=np.nan), np.float32)


def _as_numbers(column: pd.Series, labels: Sequence[str], bound: int | None) -> pd.Series:
    """A column of whole numbers as text, as a cohort holds codes, as numbers where these count.

    They do against a bound, and as 0 and 1 of two labels with other names.
    """
    known = set() if pd.api.types.is_numeric_dtype(column) else set(column.dropna())
    if not known or not all(isinstance(it, str) and it.isdigit() for it in known):
        return column
    counts = bound is not None or (len(labels) == 2 and not known <= set(labels))
    return pd.to_numeric(column).astype("Int64") if counts else column


def label_matrix(table: pd.DataFrame, heads: Sequence[HeadSpec]) -> torch.Tensor:
    """Labels (N, K): 0 or 1, or the position of a textual label; NaN for missing.

    Raises UserError: a head's target is no label column of the cohort, or holds other labels.
    """
    return torch.stack([torch.from_numpy(_label_column(table, head)) for head in heads], dim=1)


def _label_column(table: pd.DataFrame, head: HeadSpec) -> npt.NDArray[np.float32]:
    name, _, bound = head.target.partition(">=")
    usable = [column for column in table.columns if column not in NOT_LABELS]
    if name not in usable:
        raise UserError(
            f"heads: target `{head.target}` of `{head.name}` is not a label of this cohort; "
            f"it has {', '.join(usable)}; add the column, blank where unknown"
        )
    try:
        return label_codes(table[name], head.labels, int(bound) if bound else None)
    except UnknownLabelsError as error:
        raise UserError(
            f"heads: `{head.target}` holds labels that `{head.name}` does not list: "
            f"{', '.join(error.others)}; list them, in {head.name}.labels, or rename them in the "
            "cohort"
        ) from None


def implied(labels_NK: torch.Tensor, heads: Sequence[HeadSpec]) -> torch.Tensor:
    """The labels (N, K) with those that follow: where a parent is negative, so is its child.

    A blank ALNM of a benign lesion is no missing label: `ALNM in a malignant lesion` is false. What
    is evaluated on all lesions would lack the benign ones without it. Parents come before children.
    """
    found = labels_NK.clone()
    index = {head.name: k for k, head in enumerate(heads)}
    for k, head in enumerate(heads):
        if head.parent is not None and not head.categorical:
            found[found[:, k].isnan() & (found[:, index[head.parent]] == 0), k] = 0
    return found


def child_labels(
    labels_BK: torch.Tensor,
    heads: Sequence[HeadSpec],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
) -> torch.Tensor:
    """The labels that each head learns from (B, K), NaN where it learns nothing.

    Independent heads under `mask` skip samples whose parent label is 0. In a chain each head learns
    the conditional probability: these are its labels where the parent is 1, which separate it from
    the parent's (`chain_likelihood` takes what the other labels say as well). Other heads speak of
    every lesion, so they learn from all labels, those that follow from a negative parent too (see
    `implied`): from the parent's positives alone they would learn the conditional probability.
    """
    conditional = hierarchy == "chain" or (hierarchy == "independent" and parent_negative == "mask")
    learned = labels_BK.clone() if conditional else implied(labels_BK, heads)
    index = {head.name: k for k, head in enumerate(heads)}
    for k, head in enumerate(heads):
        if head.parent is None:
            continue
        parent_B = labels_BK[:, index[head.parent]]
        if hierarchy == "chain":
            learned[parent_B != 1, k] = torch.nan
        elif hierarchy == "independent" and parent_negative == "mask":
            learned[parent_B == 0, k] = torch.nan
    return learned


def measured_on(head: HeadSpec, heads: Sequence[HeadSpec]) -> tuple[str, ...]:
    """The heads on whose positives a head is measured, the primary one first, before all rows.

    That is the topmost ancestor, since the paper's ALNM and burden cohorts are the malignant
    lesions, and then the parent. Training, evaluation and comparisons take the same.
    """
    above = [ancestor.name for ancestor in ancestors(head, heads)]
    return tuple(dict.fromkeys([*above[-1:], *above[:1]]))


def absent_given(heads: Sequence[HeadSpec]) -> str | None:
    """The label column that a head's probability is given although no head has it as its target.

    There is one at most: `malignant`, where training left all other lesions out.
    """
    targets = {head.target for head in heads}
    return next((head.given for head in heads if head.given not in {None, *targets}), None)


def primary_sets(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """The primary set of each head that has another than all rows: its name, and its column.

    `heads`: name -> {labels, target, parent, given}, as metrics.json has them, parents first. What
    tells a set is a column that is true in it: NAME_truth, or a label of the cohort.
    """
    wanted = ("labels", "target", "parent", "given")
    specs = [
        HeadSpec.model_validate({"name": name, **{key: its.get(key) for key in wanted}})
        for name, its in heads.items()
    ]
    found: dict[str, tuple[str, str]] = {}
    for head in specs:
        if head.given is not None and head.given == absent_given(specs):
            found[head.name] = (f"{head.given} positive", head.given)
        elif names := measured_on(head, specs):
            found[head.name] = (f"{names[0]} positive", f"{names[0]}_truth")
    return found


def truth_of(code_N: npt.NDArray[np.float32], labels: Sequence[str]) -> pd.Series:
    """Codes as they stand in `Predictions.frame`: nullable booleans, or the text of more labels."""
    if len(labels) > 2:
        names = [None if np.isnan(code) else labels[int(code)] for code in code_N]
        return pd.Series(names, dtype="string")
    known = [None if np.isnan(code) else bool(code) for code in code_N]
    return pd.Series(known, dtype="boolean")


def truth_in(table: pd.DataFrame, head: str, labels: Sequence[str], target: str) -> pd.Series:
    """The truth of a head as any table has it: the column of its name, else that of its target.

    `target` as in `model_def.heads.HeadSpec`. All missing where there is no such column.

    Raises UserError: the column holds other labels.
    """
    name, _, bound = (head if head in table else target).partition(">=")
    if name not in table:
        return truth_of(np.full(len(table), np.nan, np.float32), labels)
    try:
        return truth_of(label_codes(table[name], labels, int(bound) if bound else None), labels)
    except UnknownLabelsError:  # what it holds instead may be anything
        wanted = "numbers" if bound else ", ".join(labels)
        also = (
            "" if bound or len(labels) > 2 else "; true and false, or 0 and 1, are accepted as well"
        )
        raise UserError(
            f"column {name}: has values that are not labels of head {head} ({wanted}){also}"
        ) from None


def _first(column: pd.Series) -> list[str]:
    return sorted(set(column.dropna().astype(str)))[:5]
