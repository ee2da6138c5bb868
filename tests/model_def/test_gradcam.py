import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam

from model_def.gradcam import grad_cam
from model_def.network import Network, joined


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


def test_of_members_it_is_the_mean_of_their_maps_before_the_relu() -> None:
    """By Captum: of the mean logit, and of each member alone."""
    torch.manual_seed(4)
    members = [Network("resnet18", 2).eval() for _ in range(3)]
    network = joined("resnet18", members)
    image = torch.rand(1, 3, 96, 96)
    _, features = network(image)

    def captums(one: Network, *, relu: bool) -> torch.Tensor:
        class Logit(torch.nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return one(images)[0]

        method = LayerGradCam(Logit(), one.trunk)
        return method.attribute(image, target=1, relu_attributions=relu)[0, 0].detach()

    ours = torch.from_numpy(grad_cam(features[0].detach(), network.heads.weight[1].detach()))
    assert ours.max() > 0.001
    torch.testing.assert_close(ours, captums(network, relu=True), rtol=1e-4, atol=1e-6)
    signed_Mhw = torch.stack([captums(one, relu=False) for one in members])
    torch.testing.assert_close(ours, signed_Mhw.mean(dim=0).clamp(min=0), rtol=1e-4, atol=1e-6)
    assert (signed_Mhw < 0).any()  # else a mean of rectified maps would be the same


def test_a_cell_of_a_resnet_looks_left_of_and_above_its_own_middle() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 256, 256, requires_grad=True)
    Network("resnet18", 1).eval()(images)[1][:, :, 4, 4].abs().sum().backward()
    assert images.grad is not None
    weight_SS = images.grad.abs().sum(dim=(0, 1))
    for axis in (0, 1):
        centre = (weight_SS.sum(dim=axis) * (torch.arange(256) + 0.5)).sum() / weight_SS.sum()
        assert centre == pytest.approx(4 * 32 + 0.5, abs=4)  # its middle is drawn at 144
