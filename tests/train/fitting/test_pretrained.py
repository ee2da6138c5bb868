import hashlib
import http.client
import urllib.error
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from model_def.network import Network
from sonode.console import UserError
from train.fitting.pretrained import load_trunk


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
    assert load_trunk(network, "resnet18", str(path)) == f"sha256 {digest}"
    assert same_trunk(network, resnet)
    assert torch.equal(network.heads.weight, before)


def test_the_weights_of_a_checkpoint(checkpoint_folder: Path) -> None:
    network = Network("resnet18", 5)
    load_trunk(network, "resnet18", str(checkpoint_folder / "weights.safetensors"))
    other = Network("resnet18", 5)
    other.trunk.load_state_dict(network.trunk.state_dict())
    assert not torch.equal(network.trunk[0].weight, Network("resnet18", 5).trunk[0].weight)


def test_imagenet(monkeypatch: pytest.MonkeyPatch, resnet: torch.nn.Module) -> None:
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: resnet.state_dict())
    network = Network("resnet18", 1)
    assert load_trunk(network, "resnet18", "imagenet") == "imagenet"
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
        load_trunk(Network("resnet18", 1), "resnet18", "imagenet")


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code was run",))


def test_files_that_are_no_weights(
    tmp_path: Path, resnet: torch.nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network("resnet18", 1)
    with pytest.raises(UserError, match="no such file"):
        load_trunk(network, "resnet18", str(tmp_path / "none.pth"))
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("text")
        with pytest.raises(UserError, match="not a weights file"):
            load_trunk(network, "resnet18", str(tmp_path / name))
    torch.save(Harm(), tmp_path / "harm.pth")
    with pytest.raises(UserError, match="not a weights file"):
        load_trunk(network, "resnet18", str(tmp_path / "harm.pth"))
    assert "code was run" not in capsys.readouterr().out
    torch.save(resnet.state_dict(), tmp_path / "resnet.pth")
    for architecture in ("resnet34", "resnet50"):
        with pytest.raises(UserError, match=f"not the weights of a {architecture}"):
            load_trunk(Network(architecture, 1), architecture, str(tmp_path / "resnet.pth"))  # type: ignore[arg-type]
