import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam

from model_def.gradcam import grad_cam
from model_def.network import Network


def test_grad_cam_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]])  # 2 channels of 1 x 2
    # (2 x 1 - 1 x 3) / 2 = -0.5, clipped to 0; (2 x 2 + 1) / 2 = 2.5
    assert grad_cam(features, torch.tensor([2.0, -1.0])).tolist() == [[0.0, 2.5]]


@pytest.mark.parametrize("architecture", ["resnet18", "tf_efficientnet_lite0", "test_convnext"])
def test_grad_cam_equals_captum(architecture: str) -> None:
    torch.manual_seed(3)
    network = Network(architecture, 3).eval()
    images = torch.rand(2, 3, 96, 96)
    _, features = network(images)

    class Logits(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return network(images)[0]

    reference, peak = LayerGradCam(Logits(), network.trunk), 0.0
    for logit in range(3):
        expected = reference.attribute(images, target=logit, relu_attributions=True)
        for index in range(2):
            ours = grad_cam(features[index].detach(), network.heads.weight[logit].detach())
            assert np.abs(ours - expected[index, 0].detach().numpy()).max() < 1e-5
            peak = max(peak, ours.max())
    assert peak > 0.001


def test_a_cell_of_a_resnet_looks_left_of_and_above_its_own_middle() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 256, 256, requires_grad=True)
    Network("resnet18", 1).eval()(images)[1][:, :, 4, 4].abs().sum().backward()
    assert images.grad is not None
    weight_SS = images.grad.abs().sum(dim=(0, 1))
    for axis in (0, 1):
        centre = (weight_SS.sum(dim=axis) * (torch.arange(256) + 0.5)).sum() / weight_SS.sum()
        assert centre == pytest.approx(4 * 32 + 0.5, abs=4)  # its middle is drawn at 144
