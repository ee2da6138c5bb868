import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_def.heads import HeadSpec, Hierarchy, logit_slices
from train.cohorts.labels import ParentNegative, child_labels
from train.fitting.losses import (
    LossSettings,
    hierarchical,
    masked_cross_entropy,
    max_constrained,
    spoken_of,
    total,
)

NAN = math.nan


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_masked_cross_entropy_by_hand(heads: tuple[HeadSpec, ...]) -> None:
    logits = torch.tensor([[logit(0.8), logit(0.4)], [logit(0.3), logit(0.9)]])
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    # Head 1: mean of -ln 0.8 and -ln 0.7; head 2: its one label, -ln 0.9.
    expected = (-math.log(0.8) - math.log(0.7)) / 2 - math.log(0.9)
    assert masked_cross_entropy(logits, labels, heads).item() == pytest.approx(expected, abs=1e-6)


def test_a_head_without_a_label_adds_nothing_and_gets_no_gradient(
    heads: tuple[HeadSpec, ...],
) -> None:
    logits = torch.tensor([[logit(0.8), 3.0]], requires_grad=True)
    loss = masked_cross_entropy(logits, torch.tensor([[1.0, NAN]]), heads)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.8), abs=1e-6)
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert masked_cross_entropy(torch.zeros(3, 2), torch.full((3, 2), NAN), heads).item() == 0


def test_hierarchical_by_hand(heads: tuple[HeadSpec, ...]) -> None:
    logits = torch.tensor(
        [[logit(0.2), logit(0.9)], [logit(0.5), logit(0.55)], [logit(0.9), logit(0.1)]]
    )
    # Gaps beyond the margin of 0.1: 0.9 - 0.2 - 0.1 = 0.6; 0.55 - 0.5 < 0.1; one-sided: 0.
    assert hierarchical(logits, heads, 0.1).item() == pytest.approx(0.6 / 3, abs=1e-6)
    assert hierarchical(logits, heads[:1], 0.1).item() == 0


@pytest.mark.parametrize(
    ("hierarchy", "parent_negative", "expected"),
    [
        # Two of eight lesions have ALNM, two of the four malignant ones.
        ("independent", "negative", 2 / 8),
        ("max_constraint", "mask", 2 / 8),
        ("independent", "mask", 2 / 4),
        ("chain", "mask", 2 / 4),
    ],
)
def test_a_blank_alnm_of_a_benign_lesion_is_no_missing_label(
    heads: tuple[HeadSpec, ...],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
    expected: float,
) -> None:
    """Scores that are alike for all images have the least loss at what the head speaks of."""
    labels = torch.tensor([[0.0, NAN]] * 4 + [[1.0, 0.0]] * 2 + [[1.0, 1.0]] * 2)
    settings = LossSettings(parent_negative=parent_negative, hierarchy_weight=0)
    alnm = torch.linspace(0.05, 0.95, 91)
    # Malignancy well above: under a max-constraint it takes no part.
    losses = [
        float(total(torch.tensor([[6.0, logit(float(p))]] * 8), labels, heads, hierarchy, settings))
        for p in alnm
    ]
    assert float(alnm[int(np.argmin(losses))]) == pytest.approx(expected, abs=1e-6)
    spoken = spoken_of(heads, hierarchy, parent_negative, malignant_only=False)
    of_all = hierarchy != "chain" and spoken[1].given is None
    known = child_labels(labels, heads, hierarchy, parent_negative)[:, 1]
    assert int((~known.isnan()).sum()) == (8 if of_all else 4)


@pytest.mark.parametrize(
    ("hierarchy", "parent_negative", "malignant_only", "expected"),
    [
        ("independent", "mask", False, (None, "malignant", "alnm")),
        ("independent", "negative", False, (None, None, None)),
        ("chain", "mask", False, (None, None, None)),
        ("max_constraint", "mask", False, (None, None, None)),
        ("independent", "negative", True, (None, "malignant", "malignant")),
        ("independent", "mask", True, (None, "malignant", "alnm")),
        ("chain", "mask", True, (None, "malignant", "malignant")),
    ],
)
def test_what_a_probability_is_given(
    heads: tuple[HeadSpec, ...],
    hierarchy: Hierarchy,
    parent_negative: ParentNegative,
    malignant_only: bool,
    expected: tuple[str | None, ...],
) -> None:
    more = HeadSpec(name="n2", target="n_nodes>=2", labels=("n", "y"), parent="alnm")
    facts = (hierarchy, parent_negative)
    found = spoken_of((*heads, more), *facts, malignant_only=malignant_only)
    assert tuple(head.given for head in found) == expected
    # ALNM alone, as the ablation trains it.
    alone = heads[1].model_copy(update={"parent": None})
    (found_alone,) = spoken_of((alone,), *facts, malignant_only=malignant_only)
    assert found_alone.given == ("malignant" if malignant_only else None)


def test_the_chain_is_the_mean_likelihood_of_a_lesion(heads: tuple[HeadSpec, ...]) -> None:
    logits = torch.tensor([[logit(0.8), logit(0.4)]] * 7, requires_grad=True)
    rows = [[1, 1], [1, 0], [0, 0], [1, NAN], [NAN, 1], [NAN, 0], [NAN, NAN]]
    # Of the unknown: ALNM implies malignancy; no ALNM is 1 - 0.8 x 0.4; and nothing is certain.
    p = [0.8 * 0.4, 0.8 * 0.6, 0.2, 0.8, 0.8 * 0.4, 1 - 0.8 * 0.4, 1]
    loss = total(logits, torch.tensor(rows), heads, "chain", LossSettings())
    assert loss.item() == pytest.approx(-sum(map(math.log, p)) / 7, abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    # d/dx of -log s(x) is s(x) - 1, of -log(1 - s(x)) is s(x); of -log(1 - st) it is
    # st(1 - s) / (1 - st) for s, and likewise for t.
    malignancy = [-0.2, -0.2, 0.8, -0.2, -0.2, 0.32 * 0.2 / 0.68, 0]
    alnm = [-0.6, 0.4, 0, 0, -0.6, 0.32 * 0.6 / 0.68, 0]
    expected = torch.tensor([malignancy, alnm]).T / 7
    assert torch.allclose(logits.grad, expected, atol=1e-6)
    assert (logits.grad[-1] == 0).all()  # exactly: Adam makes a step of any gradient


def joint(
    conditional: dict[str, torch.Tensor], labels_NK: torch.Tensor, heads: tuple[HeadSpec, ...]
) -> torch.Tensor:
    """P(labels) of each lesion (N,): the sum over all that it may be, one state after the other."""
    found_N = torch.zeros(len(labels_NK), dtype=torch.float64)
    for state in product(*(range(len(head.labels)) for head in heads)):
        of = dict(zip((head.name for head in heads), state, strict=True))
        probability_N = torch.ones(len(labels_NK), dtype=torch.float64)
        for k, head in enumerate(heads):
            unknown_N = labels_NK[:, k].isnan()
            agrees_N = unknown_N | (labels_NK[:, k] == of[head.name])
            if head.parent is None or of[head.parent] == 1:
                probability_N = probability_N * conditional[head.name][:, of[head.name]] * agrees_N
            elif of[head.name] == 0:  # no metastasis; and no subtype, which counts once
                probability_N = probability_N * (unknown_N if head.categorical else agrees_N)
            else:
                probability_N = probability_N * 0
        found_N = found_N + probability_N
    return found_N


TREE = (
    HeadSpec(name="a", target="a", labels=("n", "y")),
    HeadSpec(name="b", target="b", labels=("n", "y"), parent="a"),
    HeadSpec(name="c", target="c", labels=("n", "y"), parent="b"),
    HeadSpec(name="d", target="d", labels=("n", "y"), parent="a"),
    HeadSpec(name="e", target="e", labels=("u", "v", "w"), parent="b"),
    HeadSpec(name="f", target="f", labels=("n", "y")),
)


def test_the_chain_is_the_likelihood_whatever_is_missing() -> None:
    """Value and gradient against sums over all that a lesion may be, for all label patterns."""
    sets = [[0.0, 1.0, NAN]] * 4 + [[NAN, 2.0], [NAN, 1.0]]
    rows = []
    for a, b, c, d, e, f in product(*sets):
        # As a cohort is: what says that a head is positive is not below a negative one.
        sure_b = c == 1 or not math.isnan(e)
        if not (b == 0 and sure_b) and not (a == 0 and (b == 1 or sure_b or d == 1)):
            rows.append([a, b, c, d, e, f])
    assert len(rows) > 100
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(rows), 8, dtype=torch.float64, generator=generator)
    logits.requires_grad_()
    slices = logit_slices(TREE)
    conditional = {}
    for head in TREE:
        own = logits[:, slices[head.name]]
        both = torch.cat([torch.zeros_like(own), own], 1)  # its softmax is (1 - s(x), s(x))
        conditional[head.name] = (own if head.categorical else both).softmax(1)
    labels = torch.tensor(rows, dtype=torch.float64)
    expected = -joint(conditional, labels, TREE).log().mean()
    loss = total(logits, labels, TREE, "chain", LossSettings())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    (found,), (wanted,) = (torch.autograd.grad(it, logits) for it in (loss, expected))
    assert torch.allclose(found, wanted, atol=1e-12)


def test_blank_malignancy_does_not_move_the_chains_conditional(heads: tuple[HeadSpec, ...]) -> None:
    """Half of the lesions are malignant, half of these have ALNM; every other malignancy is blank.

    From ALNM of blank malignancy alone, and no ALNM of it left out, 4 of 6 would seem to have it.
    """
    known = [[0.0, 0.0]] * 4 + [[1.0, 0.0]] * 2 + [[1.0, 1.0]] * 2
    labels = torch.tensor(known + [[NAN, alnm] for _, alnm in known])
    grid = np.linspace(0.05, 0.95, 19)
    losses = {
        (a, b): float(
            total(
                torch.tensor([[logit(a), logit(b)]] * 16, dtype=torch.float64),
                *(labels, heads, "chain", LossSettings()),
            )
        )
        for a, b in product(grid, grid)
    }
    assert min(losses, key=lambda it: losses[it]) == pytest.approx((0.5, 0.5))


def test_max_constrained_by_hand(heads: tuple[HeadSpec, ...]) -> None:
    logits = torch.tensor([[logit(0.3), logit(0.6)]])
    # Both positive: the parent takes credit from its child, max(0.3, 0.6).
    both = max_constrained(logits, torch.tensor([[1.0, 1.0]]), heads)
    assert both.item() == pytest.approx(-2 * math.log(0.6), abs=1e-6)
    # A malignant one without ALNM: no credit from the wrong child.
    one = max_constrained(logits, torch.tensor([[1.0, 0.0]]), heads)
    assert one.item() == pytest.approx(-math.log(0.3) - math.log(0.4), abs=1e-6)
    # Benign: the parent pays for its child.
    none = max_constrained(logits, torch.tensor([[0.0, 0.0]]), heads)
    assert none.item() == pytest.approx(-2 * math.log(0.4), abs=1e-6)
    # An unlabelled child still costs a benign parent, and has no term of its own.
    missing = max_constrained(logits, torch.tensor([[0.0, NAN]]), heads)
    assert missing.item() == pytest.approx(-math.log(0.4), abs=1e-6)


SUBTYPE = HeadSpec(name="subtype", target="subtype", labels=("a", "b", "c"), parent="malignancy")


@pytest.mark.parametrize("hierarchy", ["independent", "chain", "max_constraint"])
def test_a_categorical_head_has_its_cross_entropy(
    heads: tuple[HeadSpec, ...], hierarchy: Hierarchy
) -> None:
    chosen = (heads[0], SUBTYPE)
    logits = torch.tensor([[0.0, math.log(2), 0.0, 0.0], [0.0, 5.0, 1.0, 1.0]])
    labels = torch.tensor([[1.0, 2.0], [0.0, NAN]])
    # Malignancy: -ln 0.5 twice, averaged. Subtype: softmax (1/2, 1/4, 1/4), its third label, of
    # the one row that knows it; in a chain, as malignancy, of two.
    expected = math.log(2) + math.log(4) / (2 if hierarchy == "chain" else 1)
    loss = total(logits, labels, chosen, hierarchy, LossSettings())
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_total_is_the_weighted_sum(heads: tuple[HeadSpec, ...]) -> None:
    logits = torch.tensor([[logit(0.2), logit(0.9)]])
    labels = torch.tensor([[0.0, 0.0]])
    # ALNM masked (benign): -ln 0.8 + 0.05 x (0.9 - 0.2 - 0.1)
    expected = -math.log(0.8) + 0.05 * 0.6
    loss = total(logits, labels, heads, "independent", LossSettings())
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    settings = LossSettings(parent_negative="negative", hierarchy_weight=0)
    expected = -math.log(0.8) - math.log(0.1)
    loss = total(logits, labels, heads, "independent", settings)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=8))
def test_losses_are_finite_and_not_negative(rows: list[tuple[float, float]]) -> None:
    heads = (
        HeadSpec(name="a", target="malignant", labels=("n", "y")),
        HeadSpec(name="b", target="alnm", labels=("n", "y"), parent="a"),
    )
    hierarchies: list[Hierarchy] = ["independent", "chain", "max_constraint"]
    for hierarchy in hierarchies:
        logits = torch.tensor(rows, requires_grad=True)
        loss = total(logits, (logits > 0).float(), heads, hierarchy, LossSettings())
        loss.backward()
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        assert loss >= 0
