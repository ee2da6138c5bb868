import math

import pytest
import torch

from model_def.heads import HeadSpec, check_heads, is_consistent, is_positive, probabilities


def head(name: str, parent: str | None = None, **facts: float) -> HeadSpec:
    return HeadSpec(name=name, target="alnm", labels=("no", "yes"), parent=parent, **facts)


def test_temperature_divides_the_logit() -> None:
    chosen = (head("a", temperature=2.0), head("b"))
    found = probabilities(torch.tensor([[2 * math.log(3), 0.0]]), chosen)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.5]], dtype=torch.float64))


def test_positive_is_above_the_threshold_not_at_it() -> None:
    assert not is_positive(head("a", threshold=0.4), 0.4)
    assert is_positive(head("a", threshold=0.4), 0.41)


@pytest.mark.parametrize(
    ("malignancy", "alnm", "consistent"),
    [(0.9, 0.9, True), (0.9, 0.1, True), (0.1, 0.1, True), (0.1, 0.9, False)],
)
def test_only_alnm_without_malignancy_is_inconsistent(
    heads: tuple[HeadSpec, ...], malignancy: float, alnm: float, consistent: bool
) -> None:
    assert is_consistent(heads, {"malignancy": malignancy, "alnm": alnm}) is consistent


def test_heads_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="`a` is given twice"):
        check_heads([head("a"), head("a")])
    with pytest.raises(ValueError, match="parent `b` of `a` is not a head before it"):
        check_heads([head("a", parent="b"), head("b")])
    with pytest.raises(ValueError, match="empty"):
        check_heads([])
