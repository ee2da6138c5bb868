import pytest
import torch

from model_def.network import Network


@pytest.mark.parametrize(
    ("architecture", "channels"),
    [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048), ("resnet101", 2048)],
)
def test_logits_are_linear_in_the_averaged_features(architecture: str, channels: int) -> None:
    network = Network(architecture, 3).eval()  # type: ignore[arg-type]
    logits, features = network(torch.rand(2, 3, 64, 64))
    assert features.shape == (2, channels, 2, 2)
    averaged = features.flatten(2).mean(dim=2)
    expected = averaged @ network.heads.weight.T + network.heads.bias
    torch.testing.assert_close(logits, expected)


def test_keep_logits_keeps_rows_in_the_given_order() -> None:
    network = Network("resnet18", 3).eval()
    images = torch.rand(2, 3, 64, 64)
    before, _ = network(images)
    network.keep_logits([2, 0])
    after, _ = network(images)
    torch.testing.assert_close(after, before[:, [2, 0]])
