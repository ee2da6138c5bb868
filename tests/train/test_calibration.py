import math

import pytest
import torch

from model_def.heads import HeadSpec, probabilities
from train.calibration import calibrate

NAN = math.nan


def sampled(n: int, scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `scale` times too large for labels drawn from their sigmoid."""
    generator = torch.Generator().manual_seed(seed)
    honest = 1.5 * torch.randn(n, generator=generator)
    labels = (torch.rand(n, generator=generator) < honest.sigmoid()).float()
    return scale * honest, labels


@pytest.mark.parametrize("scale", [0.7, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(scale: float) -> None:
    head = HeadSpec(name="a", target="malignant", labels=("n", "y"))
    logits, labels = sampled(4000, scale)
    (found,) = calibrate(logits[:, None], labels[:, None], [head], "independent", "0.5")
    assert found.temperature == pytest.approx(scale, rel=0.1)


def test_each_head_by_what_it_learns_from(heads: tuple[HeadSpec, ...]) -> None:
    malignancy, is_malignant = sampled(4000, 2.0)
    alnm, has_nodes = sampled(4000, 4.0, seed=1)
    has_nodes[is_malignant == 0] = 1  # nonsense that must not be looked at
    logits, labels = torch.stack([malignancy, alnm], 1), torch.stack([is_malignant, has_nodes], 1)
    for hierarchy in ("independent", "chain", "max_constraint"):
        found = calibrate(logits, labels, heads, hierarchy, "0.5")
        assert found[0].temperature == pytest.approx(2, rel=0.1)
        assert found[1].temperature == pytest.approx(4, rel=0.1)


def test_operating_points_on_the_reported_probability(heads: tuple[HeadSpec, ...]) -> None:
    malignancy, is_malignant = sampled(2000, 1.0)
    alnm, has_nodes = sampled(2000, 1.0, seed=1)
    logits, labels = torch.stack([malignancy, alnm], 1), torch.stack([is_malignant, has_nodes], 1)
    found = calibrate(logits, labels, heads, "chain", "sensitivity_0.90")
    p = probabilities(logits, found, "chain").numpy()
    malignant = is_malignant.numpy() == 1
    rows = [malignant, malignant & (has_nodes.numpy() == 1)]
    for k, head in enumerate(found):
        assert set(head.operating_points) == {"0.5", "youden", "sensitivity_0.90"}
        assert head.threshold == head.operating_points["sensitivity_0.90"]
        assert 0.9 <= (p[rows[k], k] > head.threshold).mean() < 0.91


def test_what_validation_cannot_tell_is_kept_and_said(
    heads: tuple[HeadSpec, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    logits = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, NAN]] * 30)
    malignancy, alnm = calibrate(logits, labels, heads, "independent", "youden")
    assert (malignancy.temperature, malignancy.threshold) == (1, 0.5)
    assert (alnm.temperature, alnm.threshold) == (1, 0.5)
    assert "youden" not in malignancy.operating_points
    said = capsys.readouterr().out
    assert "head malignancy: 30 validation labels do not carry a temperature" in said
    assert "head alnm: 0 validation labels" in said
    assert "head malignancy: validation gives no youden threshold" in said


def test_a_categorical_head_has_a_temperature_and_no_threshold() -> None:
    head = HeadSpec(name="s", target="s", labels=("a", "b", "c"))
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(4000, 3, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator).float()
    (found,) = calibrate(2.5 * honest, labels, [head], "independent", "youden")
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert found.operating_points == {}
