import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_def.heads import (
    HeadSpec,
    Score,
    check_heads,
    deciding,
    is_consistent,
    is_positive,
    logit_slices,
    probabilities,
    read,
    spread,
)


def head(name: str, parent: str | None = None, **facts: object) -> HeadSpec:
    return HeadSpec(
        **{"name": name, "target": "alnm", "labels": ("no", "yes"), "parent": parent, **facts}
    )


SUBTYPE = head("subtype", "a", target="subtype", labels=("luminal", "her2", "tn"))
CHAIN = (head("a"), head("b", "a"), head("c", "b"))
LN3 = math.log(3)  # the logit of 0.75


def test_temperature_divides_the_logit() -> None:
    chosen = (head("a", temperature=2.0), head("b"))
    found = probabilities(torch.tensor([[2 * LN3, 0.0]]), chosen, "independent")
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.5]], dtype=torch.float64))


def test_a_chain_multiplies_down() -> None:
    found = probabilities(torch.tensor([[LN3, 0.0, LN3]]), CHAIN, "chain")
    expected = torch.tensor([[0.75, 0.375, 0.28125]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_spread_is_the_standard_deviation_of_the_members_probabilities() -> None:
    heads = (head("a"), head("b", "a"), SUBTYPE)
    logits = torch.tensor([[[LN3, 0.0, 0, 0, LN3]], [[0.0, LN3, 0, 0, 0]]])  # of two members
    found = spread(logits, heads, "chain")
    # a: .75, .5; b: .75 x .5, .5 x .75; tn: .75 x 3/5, .5 x 1/3. Of x and y: abs(x - y) / 2 ** .5.
    assert found.dtype == torch.float64
    expected = torch.tensor([0.25, 0.0, 0.15 - 0.5 / 3, 0.15 - 0.5 / 3, 0.45 - 0.5 / 3]).abs()
    torch.testing.assert_close(found[0], expected.double() / math.sqrt(2))
    own = read([0.625, 0.375, 0.1, 0.1, 0.425], heads, found[0].tolist())
    assert own["a"].spread == pytest.approx(0.25 / math.sqrt(2))
    assert own["subtype"].label == "tn"
    assert own["subtype"].spread == found[0, 4].item()  # of the label that it gives
    assert read([0.625], heads[:1])["a"].spread is None


def test_which_logit_decides_under_a_max_constraint() -> None:
    heads = (*CHAIN, SUBTYPE)
    rows = torch.tensor([[-17.0, 0, 50, 99, 99, 99], [60, 0, 50, 0, 0, 0], [3, 3, 1, 0, 0, 0]])
    own = {"a": "a", "b": "b", "c": "c", "subtype": "subtype"}
    found = [deciding(logits, heads, "max_constraint") for logits in rows]
    assert found == [own | {"a": "c", "b": "c"}, own | {"b": "c"}, own]
    cooled = (head("a"), head("b", "a", temperature=4.0))
    assert deciding(torch.tensor([1.0, 3.0]), cooled, "max_constraint") == {"a": "a", "b": "b"}
    for hierarchy in ("independent", "chain"):
        assert deciding(rows[0], heads, hierarchy) == own  # type: ignore[arg-type]


def test_max_constraint_lifts_parents() -> None:
    found = probabilities(torch.tensor([[-LN3, 0.0, LN3]]), CHAIN, "max_constraint")
    torch.testing.assert_close(found, torch.full((1, 3), 0.75, dtype=torch.float64))
    siblings = (head("a"), head("b", "a"), head("c", "a"))
    found = probabilities(torch.tensor([[LN3, 0.0, -LN3]]), siblings, "max_constraint")
    expected = torch.tensor([[0.75, 0.5, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


@given(st.lists(st.floats(-60, 60), min_size=3, max_size=3), st.sampled_from([0.3, 1.0, 4.0]))
def test_no_child_is_ever_more_probable_than_its_parent(
    logits: list[float], temperature: float
) -> None:
    chain = tuple(h.model_copy(update={"temperature": temperature}) for h in CHAIN)
    for hierarchy in ("chain", "max_constraint"):
        a, b, c = probabilities(torch.tensor([logits]), chain, hierarchy)[0].tolist()
        assert 0 <= c <= b <= a <= 1


def test_a_categorical_head_shares_out() -> None:
    heads = (head("a"), SUBTYPE)
    assert logit_slices(heads) == {"a": slice(0, 1), "subtype": slice(1, 4)}
    logits = torch.tensor([[0.0, math.log(2), 0.0, 0.0]])
    alone = probabilities(logits, heads, "independent")[0]
    torch.testing.assert_close(alone, torch.tensor([0.5, 0.5, 0.25, 0.25], dtype=torch.float64))
    chained = probabilities(logits, heads, "chain")[0]
    torch.testing.assert_close(
        chained, torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    )
    scores = read(chained.tolist(), heads)
    assert scores["a"] == Score(0.5, "no", None)
    assert scores["subtype"].label == "luminal"
    assert scores["subtype"].probability == pytest.approx(0.25)
    assert scores["subtype"].distribution == pytest.approx(
        {"luminal": 0.25, "her2": 0.125, "tn": 0.125}
    )


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
    assert is_consistent(heads, read([malignancy, alnm], heads)) is consistent


def test_heads_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="`a` is given twice"):
        check_heads([head("a"), head("a")])
    with pytest.raises(ValueError, match="parent `b` of `a` is not a head before it"):
        check_heads([head("a", parent="b"), head("b")])
    with pytest.raises(ValueError, match="empty"):
        check_heads([])
    with pytest.raises(ValueError, match="parent `subtype` of `b` has more than two labels"):
        check_heads([head("a"), SUBTYPE, head("b", "subtype")])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels", ("one",)),
        ("labels", ("same", "same")),
        ("target", "n_nodes>=0"),
        ("target", "n_nodes>2"),
        ("name", "A"),
        ("threshold", 1.0),
        ("temperature", 0.0),
    ],
)
def test_facts_that_cannot_be(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        head("a", **{field: value}) if field != "name" else head(str(value))
