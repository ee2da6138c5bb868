import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from model_def.heads import HeadSpec
from sonode.console import UserError
from train.cohorts.labels import (
    UnknownLabelsError,
    absent_given,
    child_labels,
    implied,
    label_codes,
    label_matrix,
    measured_on,
    primary_sets,
    truth_in,
)

NAN = math.nan
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
    blank = column(None, "1")[:1]  # text, since nothing in it says that it would be counts
    np.testing.assert_array_equal(label_codes(blank, ("<2", ">=2"), 2), [np.nan])
    codes = label_codes(column("0", "2", None, "5"), ("<2", ">=2"), 2)
    np.testing.assert_array_equal(codes, [0, 1, np.nan, 1])


def test_a_nan_is_missing_and_no_small_count() -> None:
    codes = label_codes(column(0.0, NAN, None, 5.0), ("<2", ">=2"), 2)
    np.testing.assert_array_equal(codes, [0, np.nan, np.nan, 1])
    codes = label_codes(column(0.0, NAN, 1.0), ("n", "y"))
    np.testing.assert_array_equal(codes, [0, np.nan, 1])


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


def test_a_refusal_names_what_is_accepted_and_no_value() -> None:
    table = pd.DataFrame({"alnm": column("yes", "Jane Doe")})
    with pytest.raises(UserError) as caught:
        truth_in(table, *HEAD)
    assert re.match(r"column alnm: .*\(no ALNM, ALNM\); true and false", str(caught.value))


NAN = np.nan
LINE = tuple(
    HeadSpec(name=name, target=target, labels=("n", "y"), parent=parent)
    for name, target, parent in (
        ("tumour", "cancer", None),
        ("axilla", "alnm", "tumour"),
        ("many", "n_nodes>=2", "axilla"),
    )
)


def test_what_follows_from_a_negative_parent_is_known() -> None:
    subtype = HeadSpec(name="s", target="s", labels=("a", "b", "c"), parent="tumour")
    labels = torch.tensor(
        [[0, NAN, NAN, NAN], [1, NAN, NAN, NAN], [NAN, NAN, 1, 2], [1, 0, NAN, 1], [0, 1, NAN, NAN]]
    )
    found = implied(labels, (*LINE, subtype))
    assert found.nan_to_num(-1).tolist() == [
        [0, 0, 0, -1],  # down the whole line; a categorical head has no negative label
        [1, -1, -1, -1],
        [-1, -1, 1, 2],
        [1, 0, 0, 1],
        [0, 1, -1, -1],  # a label that is there stays, even one that contradicts
    ]
    assert labels[0, 1].isnan()


def test_primary_sets_by_parents() -> None:
    assert [measured_on(head, LINE) for head in LINE] == [(), ("tumour",), ("tumour", "axilla")]
    facts = {head.name: head.model_dump() for head in LINE}
    on_tumours = ("tumour positive", "tumour_truth")
    assert primary_sets(facts) == {"axilla": on_tumours, "many": on_tumours}
    # Conditional on the parent, which has a head: the paper's set is primary all the same.
    assert primary_sets({**facts, "axilla": {**facts["axilla"], "given": "cancer"}}) == (
        primary_sets(facts)
    )
    # No head of what it is given: a label of the cohort.
    alone = LINE[1].model_copy(update={"parent": None, "given": "malignant"})
    assert absent_given([alone]) == "malignant"
    assert absent_given(LINE) is None
    assert primary_sets({"axilla": alone.model_dump()}) == {
        "axilla": ("malignant positive", "malignant")
    }


TABLE = pd.DataFrame(
    {
        "malignant": pd.array([True, False, None], dtype="bool[pyarrow]"),
        "n_nodes": pd.array([0, 3, None], dtype="Int32"),
        "subtype": pd.array(["b", None, "a"], dtype="string"),
        "lesion_id": ["x", "y", "z"],
    }
)


@pytest.mark.parametrize(
    ("target", "labels", "expected"),
    [
        ("malignant", ("n", "y"), [1, 0, -1]),
        ("n_nodes>=1", ("n", "y"), [0, 1, -1]),
        ("n_nodes>=4", ("n", "y"), [0, 0, -1]),
        ("subtype", ("a", "b", "c"), [1, -1, 0]),
    ],
)
def test_labels_by_hand(target: str, labels: tuple[str, ...], expected: list[int]) -> None:
    head = HeadSpec(name="h", target=target, labels=labels)
    assert label_matrix(TABLE, [head])[:, 0].nan_to_num(-1).tolist() == expected


def test_labels_that_the_cohort_does_not_have() -> None:
    for target in ("liver", "lesion_id"):
        head = HeadSpec(name="h", target=target, labels=("n", "y"))
        with pytest.raises(UserError, match=f"target `{target}` of `h` is not a label"):
            label_matrix(TABLE, [head])
    head = HeadSpec(name="h", target="subtype", labels=("a", "c", "d"))
    with pytest.raises(UserError, match="`subtype` holds labels that `h` does not list: b;"):
        label_matrix(TABLE, [head])


def test_benign_images_in_the_alnm_term(heads: tuple[HeadSpec, ...]) -> None:
    labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [NAN, 1.0], [1.0, NAN]])
    masked = child_labels(labels, heads, "independent", "mask")
    assert masked[:, 0].nan_to_num(-1).tolist() == [0, 1, -1, 1]
    assert masked[:, 1].nan_to_num(-1).tolist() == [-1, 0, 1, -1]
    as_it_is = child_labels(labels, heads, "independent", "negative")
    assert torch.equal(as_it_is.nan_to_num(-1), labels.nan_to_num(-1))


def test_what_the_heads_of_a_chain_learn_from(heads: tuple[HeadSpec, ...]) -> None:
    labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [NAN, 1.0], [NAN, 0.0], [1.0, NAN]])
    learned = child_labels(labels, heads, "chain", "negative")
    # Of unknown malignancy neither: ALNM alone would be learned from, and no ALNM not.
    assert learned[:, 1].nan_to_num(-1).tolist() == [-1, 0, -1, -1, -1]
