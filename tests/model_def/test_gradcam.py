import io

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image

from model_def.gradcam import grad_cam, overlay
from model_def.network import Network


def test_grad_cam_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]])  # 2 channels of 1 x 2
    # (2 x 1 - 1 x 3) / 2 = -0.5, clipped to 0; (2 x 2 + 1) / 2 = 2.5
    assert grad_cam(features, torch.tensor([2.0, -1.0])).tolist() == [[0.0, 2.5]]


@pytest.mark.parametrize("head", [0, 1])
def test_grad_cam_equals_captum(head: int) -> None:
    torch.manual_seed(3)
    network = Network("resnet18", 2).eval()
    images = torch.rand(2, 3, 96, 96)
    _, features = network(images)

    class OneHead(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return network(images)[0]

    reference = LayerGradCam(OneHead(), network.trunk[-1]).attribute(
        images, target=head, relu_attributions=True
    )
    for index in range(2):
        ours = grad_cam(features[index].detach(), network.heads.weight[head].detach())
        assert np.abs(ours - reference[index, 0].detach().numpy()).max() < 1e-5
        assert ours.max() > 0


def test_overlay_keeps_the_crop_aspect_and_colours_where_the_map_is() -> None:
    cam = np.zeros((4, 4), np.float32)
    cam[:, 3] = 1
    picture = np.asarray(Image.open(io.BytesIO(overlay(np.full((50, 100), 90, np.uint8), cam))))
    assert picture.shape == (256, 512, 3)
    assert (picture[:, :100] == 90).all()  # far from the map the crop is untouched
    red, _, blue = picture[128, 505].astype(int)
    assert red > 2 * blue


def test_an_overlay_keeps_light_and_dark_apart_under_the_colour() -> None:
    crop = np.full((512, 512), 200, np.uint8)
    crop[256:] = 40
    picture = np.asarray(Image.open(io.BytesIO(overlay(crop, np.ones((8, 8), np.float32)))))
    # 0.3 x 200 + 0.7 x (0.15 + 0.85 x 200 / 255) x 122 = 129.7, with 122 the red of turbo's end.
    assert picture[100, 100, 0] == 130
    # 0.3 x 40 + 0.7 x (0.15 + 0.85 x 40 / 255) x 122 = 36.2
    assert picture[400, 100, 0] == 36


def test_an_overlay_of_nothing_is_the_crop_itself() -> None:
    picture = overlay(np.full((512, 512), 33, np.uint8), np.zeros((8, 8), np.float32))
    assert (np.asarray(Image.open(io.BytesIO(picture))) == 33).all()
