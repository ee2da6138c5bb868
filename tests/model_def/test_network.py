import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model_def.network import ArchitectureError, Network

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("architecture", "channels"),
    [
        ("resnet18", 512),
        ("resnet34", 512),
        ("resnet50", 2048),
        ("resnet101", 2048),
        ("tf_efficientnet_lite0", 1280),
        ("mobilenetv4_conv_small_050", 1280),
    ],
)
def test_logits_are_linear_in_the_averaged_features(architecture: str, channels: int) -> None:
    network = Network(architecture, 3)
    assert network.training
    logits, features = network.eval()(torch.rand(2, 3, 64, 64))
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


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("tf_eficientnet_lite0", r"unknown; .*, for example tf_efficientnet_lite0"),
        ("hf-hub:timm/tf_efficientnet_lite0.in1k", "unknown"),  # timm would fetch it
        ("", "unknown"),
        ("test_vit", r"no feature map .* but \(17, 64\)"),  # tokens
        ("mambaout_femto", r"no feature map .* but \(2, 2, 1152\)"),  # channels last
        ("vit_tiny_patch16_224", r"no feature map of 64 x 64 pixels \(.*224"),
        ("efficientvit_b0", r"no feature map of 64 x 64 pixels \(Cannot disable pooling"),
    ],
)
def test_a_trunk_that_will_not_do_is_refused_in_a_line(architecture: str, says: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^architecture {architecture}: .*{says}") as error:
        Network(architecture, 1)
    assert "\n" not in str(error.value)


def test_a_node_without_timm_says_so_and_has_its_resnets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    Network("resnet18", 1)
    with pytest.raises(
        ArchitectureError, match=r"lite0: .*timm.* not installed.* pip install timm"
    ):
        Network("tf_efficientnet_lite0", 1)


OTHER = "from torch._dynamo.utils import counters\nmodels = 0\n"


@pytest.mark.parametrize(
    ("torchvision", "loaded"), [("", False), pytest.param(OTHER, True, marks=pytest.mark.slow)]
)
def test_a_process_loads_torchs_compiler_only_where_torchvision_needs_it(
    tmp_path: Path, torchvision: str, loaded: bool
) -> None:
    """The second one is of a version that asks the compiler for more."""
    if torchvision:
        (tmp_path / "torchvision.py").write_text(torchvision)
    code = (
        "import sys, model_def.network\n"
        f"assert ('torch._dynamo' in sys.modules) is {loaded}\n"
        f"assert ('torch._dynamo.utils' in sys.modules) is {loaded}\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
