import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_def.heads import HeadSpec
from train.losses import LossSettings, child_labels, hierarchical, masked_bce, total

NAN = math.nan


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_masked_bce_by_hand() -> None:
    logits = torch.tensor([[logit(0.8), logit(0.4)], [logit(0.3), logit(0.9)]])
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    # Head 1: mean of -ln 0.8 and -ln 0.7; head 2: its one label, -ln 0.9.
    expected = (-math.log(0.8) - math.log(0.7)) / 2 - math.log(0.9)
    assert masked_bce(logits, labels).item() == pytest.approx(expected, abs=1e-6)


def test_a_head_without_a_label_adds_nothing_and_gets_no_gradient() -> None:
    logits = torch.tensor([[logit(0.8), 3.0]], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([[1.0, NAN]]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.8), abs=1e-6)
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert masked_bce(torch.zeros(3, 2), torch.full((3, 2), NAN)).item() == 0


def test_hierarchical_by_hand(heads: tuple[HeadSpec, ...]) -> None:
    logits = torch.tensor(
        [[logit(0.2), logit(0.9)], [logit(0.5), logit(0.55)], [logit(0.9), logit(0.1)]]
    )
    # Gaps beyond the margin of 0.1: 0.9 - 0.2 - 0.1 = 0.6; 0.55 - 0.5 < 0.1; one-sided: 0.
    assert hierarchical(logits, heads, 0.1).item() == pytest.approx(0.6 / 3, abs=1e-6)
    assert hierarchical(logits, heads[:1], 0.1).item() == 0


def test_benign_images_in_the_alnm_term(heads: tuple[HeadSpec, ...]) -> None:
    labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [NAN, 1.0], [1.0, NAN]])
    masked = child_labels(labels, heads, "mask")
    assert masked[:, 0].nan_to_num(-1).tolist() == [0, 1, -1, 1]
    assert masked[:, 1].nan_to_num(-1).tolist() == [-1, 0, 1, -1]
    assert child_labels(labels, heads, "negative") is labels


def test_total_is_the_weighted_sum(heads: tuple[HeadSpec, ...]) -> None:
    logits = torch.tensor([[logit(0.2), logit(0.9)]])
    labels = torch.tensor([[0.0, 0.0]])
    # ALNM masked (benign): -ln 0.8 + 0.05 x (0.9 - 0.2 - 0.1)
    expected = -math.log(0.8) + 0.05 * 0.6
    assert total(logits, labels, heads, LossSettings()).item() == pytest.approx(expected, abs=1e-6)
    settings = LossSettings(parent_negative="negative", hierarchy_weight=0)
    expected = -math.log(0.8) - math.log(0.1)
    assert total(logits, labels, heads, settings).item() == pytest.approx(expected, abs=1e-5)


@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=8))
def test_the_loss_is_finite_and_not_negative(rows: list[tuple[float, float]]) -> None:
    heads = (
        HeadSpec(name="a", target="malignant", labels=("n", "y")),
        HeadSpec(name="b", target="alnm", labels=("n", "y"), parent="a"),
    )
    logits = torch.tensor(rows)
    loss = total(logits, (logits > 0).float(), heads, LossSettings())
    assert torch.isfinite(loss)
    assert loss >= 0
