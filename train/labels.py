"""How a column says which label a row has: yes and no, 0 and 1, a count with a bound, or text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd


class UnknownLabelsError(ValueError):
    """A column holds other things than the labels; `others` are the first of them, as text."""

    def __init__(self, others: Sequence[str]) -> None:
        super().__init__(f"unknown labels: {', '.join(others)}")
        self.others = list(others)


def label_codes(
    column: pd.Series, labels: Sequence[str], bound: int | None = None
) -> npt.NDArray[np.float32]:
    """The place (N,) of each row's label in `labels`, NaN where it is missing.

    `column` is of a nullable type (of Arrow, say). `bound`: of a column of counts; from there on it
    is the second label.

    Raises:
        UnknownLabelsError: the column holds other labels, or no counts.
    """
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


def _first(column: pd.Series) -> list[str]:
    return sorted(set(column.dropna().astype(str)))[:5]
