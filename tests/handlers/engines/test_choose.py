"""Every engine that runs here against float32 torch, on a network whose scores differ."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from handlers.engines import choose
from handlers.engines.base import Engine, EngineUnavailable, Forward
from handlers.engines.openvino_engine import trunk_graph
from handlers.engines.torch_engines import AutocastEngine
from handlers.settings import EngineName, Settings
from model_def import checkpoint
from model_def.network import Network
from model_def.preprocessing import normalise

CPU = torch.device("cpu")
DEVICE = choose.choose_device(0)  # a GPU where there is one: `make gpu`
SETTINGS = Settings(threads=2)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """Five rows that differ in brightness and texture, as lesions do."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand((5, 64, 64), generator=generator)
    return (noise * torch.linspace(50, 250, 5)[:, None, None]).to(torch.uint8)


def load(folder: Path) -> tuple[Network, checkpoint.ModelCard]:
    """The checkpoint with logits as a trained network has them: its own are far apart."""
    network, card = checkpoint.load(folder)
    with torch.no_grad():
        network.heads.weight.div_(8)
    return network, card


def made(name: str, folder: Path) -> Engine:
    network, card = load(folder)
    if name == "autocast":  # the code of `cuda`, as far as it goes without a GPU
        return AutocastEngine(network, card.preprocessing, DEVICE)
    device = CPU if name.startswith("openvino") else DEVICE
    return choose.build(name, network, card.preprocessing, device, SETTINGS)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["eager", "openvino", "openvino-fp32", "autocast"])
def engine(request: pytest.FixtureRequest, resnet_folder: Path) -> Iterator[Engine]:
    if request.param.startswith("openvino"):
        pytest.importorskip("openvino")
    yield made(request.param, resnet_folder)


@pytest.fixture(scope="module")
def reference(resnet_folder: Path, crops: torch.Tensor) -> Forward:
    """Logits and features in float32, straight from the network."""
    network, card = load(resnet_folder)
    with torch.no_grad():
        return Forward(*network(normalise(crops, card.preprocessing)))


def test_it_gives_the_probabilities_of_float32(
    engine: Engine, reference: Forward, crops: torch.Tensor
) -> None:
    found = engine.forward(crops)
    assert found.logits_BL.dtype == found.features_BChw.dtype == torch.float32
    assert found.features_BChw.shape == reference.features_BChw.shape
    difference = (found.logits_BL.sigmoid() - reference.logits_BL.sigmoid()).abs().max()
    assert difference <= engine.tolerance
    # The rows differ by far more than that: an exchange of rows would show.
    assert reference.logits_BL.sigmoid().std(dim=0).min() > 2 * difference
    scale = reference.features_BChw.abs().max()
    rounding = 2**-6 if engine.tolerance > 1e-3 else 1e-5
    assert (found.features_BChw.cpu() - reference.features_BChw).abs().max() < rounding * scale


def rounds_alike(engine: Engine) -> bool:
    """Whether a row is computed in the same way beside other rows and in each thread."""
    return engine.name.startswith(("openvino", "eager-cpu"))


def test_a_row_does_not_depend_on_its_neighbours(engine: Engine, crops: torch.Tensor) -> None:
    together = engine.forward(crops).logits_BL.sigmoid()
    alone = torch.cat([engine.forward(crop_1SS).logits_BL for crop_1SS in crops.split(1)]).sigmoid()
    allowed = 1e-5 if rounds_alike(engine) else engine.tolerance
    assert (together - alone).abs().max() <= allowed


def test_threads_may_call_it_at_once(engine: Engine, crops: torch.Tensor) -> None:
    expected = [engine.forward(crop_1SS).logits_BL for crop_1SS in crops.split(1)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engine.forward, [*crops.split(1)] * 8))
    allowed = 1e-4 if rounds_alike(engine) else engine.tolerance
    for index, forward in enumerate(found):
        difference = forward.logits_BL.sigmoid() - expected[index % 5].sigmoid()
        assert difference.abs().max() <= allowed


def test_openvino_is_called_once_before_several_threads_may_call_it(
    resnet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads at once in the first call of a process hung it now and then."""
    from handlers.engines.openvino_engine import OpenVINOEngine

    pytest.importorskip("openvino")
    forward, threads = OpenVINOEngine.forward, []

    def watched(self: OpenVINOEngine, crops_BSS: torch.Tensor) -> Forward:
        threads.append(threading.get_ident())
        return forward(self, crops_BSS)

    monkeypatch.setattr(OpenVINOEngine, "forward", watched)
    made("openvino-fp32", resnet_folder)
    assert threads == [threading.get_ident()]


class Bessel(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(images)


def test_openvino_names_what_it_lacks() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(EngineUnavailable, match=r"openvino: .*bessel_j0.*another engine") as error:
        trunk_graph(Bessel(), 32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("device", "tf32"), [("cuda", False), ("cpu", True)])
def test_float32_is_not_tf32_on_a_gpu(
    device: str, tf32: bool, resnet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(
        choose, "EagerEngine", lambda *_: found.append(torch.backends.cudnn.allow_tf32)
    )
    network, card = load(resnet_folder)
    choose.build("eager", network, card.preprocessing, torch.device(device), SETTINGS)
    assert found == [tf32]


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = Settings()
    monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    monkeypatch.setattr("handlers.engines.choose.installed", lambda: False)
    cuda = torch.device("cuda", 0)
    for architecture in ("resnet50", "tf_efficientnet_lite0"):
        assert choose.candidates(auto, CPU, architecture) == ["eager"]
    monkeypatch.setattr("handlers.engines.choose.installed", lambda: True)
    assert choose.candidates(auto, CPU, "resnet50") == ["openvino"]
    assert choose.candidates(auto, cuda, "resnet50") == ["cuda"]
    # bfloat16 is for ResNets, unless it is asked for.
    assert choose.candidates(auto, CPU, "tf_efficientnet_lite0") == ["openvino-fp32"]
    assert choose.candidates(auto, cuda, "tf_efficientnet_lite0") == ["eager"]
    both = Settings(engine="openvino", fallback=("openvino", "eager"))
    for architecture in ("resnet50", "tf_efficientnet_lite0"):
        assert choose.candidates(both, CPU, architecture) == ["openvino", "eager"]


@pytest.mark.parametrize(
    ("name", "needs"), [("openvino", r"\.\[cpu\]"), ("cuda", "no CUDA device")]
)
def test_an_engine_that_cannot_run_names_what_it_needs(
    name: EngineName, needs: str, resnet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineUnavailable, match=f"engine {name}: .*{needs}"):
        made(name, resnet_folder)


def test_the_next_engine_is_taken_only_where_one_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def use(name: EngineName) -> float:
        if name == "openvino":
            raise EngineUnavailable("not here")
        return 0.5

    with pytest.raises(EngineUnavailable, match="not here"):
        choose.first_that_holds(["openvino"], use)
    assert caplog.messages == []
    assert choose.first_that_holds(["openvino", "eager"], use) == 0.5
    assert caplog.messages == ["engine openvino is not used: not here; trying eager"]
