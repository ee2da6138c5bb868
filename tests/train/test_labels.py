from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sonode_console import UserError
from train.labels import UnknownLabelsError, label_codes, truth_in

HEAD = ("alnm", ("no ALNM", "ALNM"), "n_nodes>=2")


def column(*values: Any) -> pd.Series:
    return pa.table({"x": list(values)}).to_pandas(types_mapper=pd.ArrowDtype)["x"]


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        ([True, False, None], ("n", "y"), [1, 0, np.nan]),
        ([0, 1, None], ("n", "y"), [0, 1, np.nan]),
        ([1.0, 0.0], ("n", "y"), [1, 0]),
        (["y", None, "n"], ("n", "y"), [1, np.nan, 0]),
        (["1", None, "0"], ("n", "y"), [1, np.nan, 0]),
        (["1", None, "0"], ("1", "0"), [0, np.nan, 1]),
        (["c", "a", None], ("a", "b", "c"), [2, 0, np.nan]),
    ],
)
def test_codes(values: list[Any], labels: tuple[str, ...], expected: list[float]) -> None:
    np.testing.assert_array_equal(label_codes(column(*values), labels), expected)


def test_a_count_with_a_bound() -> None:
    codes = label_codes(column(0, 2, None, 5), ("<2", ">=2"), 2)
    np.testing.assert_array_equal(codes, [0, 1, np.nan, 1])
    codes = label_codes(column("0", "2", None, "5"), ("<2", ">=2"), 2)
    np.testing.assert_array_equal(codes, [0, 1, np.nan, 1])


@pytest.mark.parametrize(
    ("values", "labels", "bound"),
    [
        ([0, 2], ("n", "y"), None),
        (["y", "maybe"], ("n", "y"), None),
        ([1, 2], ("a", "b", "c"), None),
        (["1", "two"], ("<2", ">=2"), 2),
        (["0", "2"], ("n", "y"), None),
    ],
)
def test_other_labels(values: list[Any], labels: tuple[str, ...], bound: int | None) -> None:
    with pytest.raises(UnknownLabelsError):
        label_codes(column(*values), labels, bound)


def test_truth_is_in_the_column_of_the_name_or_of_the_target() -> None:
    table = pd.DataFrame({"n_nodes": column(0, 3, None), "alnm": column(True, False, None)})
    assert truth_in(table, *HEAD).tolist() == [True, False, pd.NA]
    assert truth_in(table[["n_nodes"]], *HEAD).tolist() == [False, True, pd.NA]
    assert truth_in(table[[]], *HEAD).isna().all()


def test_truth_of_more_labels_is_text() -> None:
    table = pd.DataFrame({"subtype": column("A", None, "C")})
    assert truth_in(table, "subtype", ("A", "B", "C"), "subtype").tolist() == ["A", pd.NA, "C"]


def test_a_refusal_tells_what_is_taken_and_not_what_is_there() -> None:
    table = pd.DataFrame({"alnm": column("yes", "Jane Doe")})
    with pytest.raises(UserError) as caught:
        truth_in(table, *HEAD)
    assert str(caught.value) == (
        "column alnm: holds other things than the labels of head alnm (no ALNM, ALNM); true and "
        "false, or 0 and 1, are taken as well"
    )
