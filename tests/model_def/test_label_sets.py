"""A set beside a label: which labels an image may have, and when a result is uncertain."""

import pytest

from model_def.heads import HeadSpec, read
from model_def.label_sets import LabelSets

FACTS = {"level": 0.9, "given": None, "patients": {"benign": 30, "malignant": 20}}


def head(least: dict[str, float] | None, threshold: float = 0.5) -> HeadSpec:
    return HeadSpec(
        name="malignancy",
        target="malignant",
        labels=("benign", "malignant"),
        threshold=threshold,
        label_sets=LabelSets(**FACTS, least=least),
    )


@pytest.mark.parametrize(
    ("probability", "labels", "uncertain"),
    [
        (0.25, ("benign",), False),
        (0.375, ("benign", "malignant"), True),  # at a bound it is in
        (0.5, ("benign", "malignant"), True),
        (0.875, ("malignant",), False),
    ],
)
def test_a_label_is_in_from_its_bound_on(
    probability: float, labels: tuple[str, ...], uncertain: bool
) -> None:
    overlapping = head({"benign": 0.25, "malignant": 0.375})
    (score,) = read([probability], [overlapping]).values()
    assert (score.label_set, score.uncertain) == (labels, uncertain)


def test_where_no_label_reaches_its_bound_all_are_in() -> None:
    apart = head({"benign": 0.625, "malignant": 0.625})
    (score,) = read([0.5], [apart]).values()
    assert (score.label_set, score.uncertain) == (("benign", "malignant"), True)


def test_a_label_that_the_set_rules_out_is_uncertain() -> None:
    # Called malignant from 0.2 on, to miss few; the bounds say benign.
    early = head({"benign": 0.25, "malignant": 0.375}, threshold=0.2)
    (score,) = read([0.25], [early]).values()
    assert (score.label, score.label_set, score.uncertain) == ("malignant", ("benign",), True)


def test_without_bounds_nothing_is_said() -> None:
    for without in (head(None), head(None).model_copy(update={"label_sets": None})):
        (score,) = read([0.25], [without]).values()
        assert (score.label_set, score.uncertain) == (None, None)


def test_a_set_of_three_labels() -> None:
    bounds = {"A": 0.5, "B": 0.25, "C": 0.125}
    sets = LabelSets(level=0.9, given=None, patients=dict.fromkeys(bounds, 20), least=bounds)
    three = HeadSpec(name="subtype", target="subtype", labels=("A", "B", "C"), label_sets=sets)
    (score,) = read([0.375, 0.25, 0.375], [three]).values()
    assert (score.label, score.label_set, score.uncertain) == ("A", ("B", "C"), True)
