"""Heat maps: against Captum, against hand-computed maps, and row by row through the service."""

import base64
import io
import json
import math
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import nn

from archives.packing.pack import pack
from handlers import stages
from handlers.errors import ExplanationTooLong, RowError
from handlers.explain import attribution
from handlers.explain.attribution import Attribution, Attributor
from handlers.requests import METHODS
from handlers.service import ScoringService
from model_def import checkpoint
from model_def.checkpoint import ModelCard
from model_def.heads import HeadSpec, logit_slices
from model_def.network import Network
from model_def.preprocessing import Preprocessing, normalise
from tests.conftest import TRUNK, encode
from tests.handlers.contexts import FakeContext, context_of
from train.cohorts.cohort import Cohort

ALL = ("malignancy", "alnm", "subtype")
N = 5


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringService]:
    """A chain with a categorical head, from its archive."""
    card = ModelCard(
        architecture=TRUNK,
        heads=(
            HeadSpec(name="malignancy", target="malignant", labels=("benign", "malignant")),
            HeadSpec(name="alnm", target="alnm", labels=("no", "yes"), parent="malignancy"),
            HeadSpec(name="subtype", target="subtype", labels=("A", "B", "C"), parent="malignancy"),
        ),
        hierarchy="chain",
        preprocessing=Preprocessing(size=96, context=0.1),
        training={},
    )
    torch.manual_seed(2)
    network = Network(card.architecture, 5)
    with torch.no_grad():
        network.heads.weight.mul_(60)
    folder = tmp_path_factory.mktemp("attribution")
    checkpoint.save(folder / "checkpoint", network, card)
    with zipfile.ZipFile(pack(folder / "checkpoint", "chain", "1.0", folder / "store")) as archive:
        archive.extractall(folder / "unpacked")
    made = ScoringService()
    made.initialize(context_of(folder / "unpacked"))
    yield made


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    rng = np.random.default_rng(4)
    frames = []
    for level in np.linspace(20, 220, N):
        noise = rng.normal(level, 10 + level / 4, (70, 90))
        frames.append(encode(np.clip(noise, 0, 255).astype(np.uint8)))
    return frames


def rows(frames: list[bytes], explain: object) -> list[dict[str, Any]]:
    return [
        {
            "body": {
                "image": base64.b64encode(png).decode(),
                "roi": [9, 8, 80, 60],
                "explain": explain,
            }
        }
        for png in frames
    ]


class OneOutput(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)[0]


def inputs_of(service: ScoringService, frames: list[bytes]) -> torch.Tensor:
    prepared = [service.preprocess(row, {}) for row in rows(frames, "gradcam")]
    pixels = np.stack([item.input_SS for item in prepared])
    return normalise(torch.from_numpy(pixels), service.card.preprocessing)


def test_grad_cam_of_the_service_equals_captum(
    service: ScoringService, frames: list[bytes]
) -> None:
    network, slices = service.attributor.network, logit_slices(service.card.heads)
    reference = LayerGradCam(OneOutput(network), network.trunk)
    images = inputs_of(service, frames)
    logits = OneOutput(network)(images)
    together = service.score(rows(frames, {"method": "gradcam", "grid": True}))
    peak, said = 0.0, set()
    for index, outcome in enumerate(together):
        for head in ALL:
            target = slices[head].start + int(logits[index, slices[head]].argmax())
            expected = reference.attribute(
                images[index : index + 1], target=target, relu_attributions=True
            )
            heatmap = outcome.body["heatmaps"][head]
            grid = np.array(heatmap["grid"])
            assert np.abs(grid - expected[0, 0].detach().numpy()).max() < 1e-5
            assert heatmap["max"] == pytest.approx(grid.max(), rel=1e-5)
            assert heatmap["box"] == [2, 3, 87, 65]  # a tenth of 71 x 52 wider on each side
            peak = max(peak, grid.max())
            said.add(heatmap["target"])
    assert peak > 0.1
    assert {"logit of malignancy", "logit of alnm given malignancy"} < said
    assert {text for text in said if "subtype" in text} <= {
        f"logit of subtype = {label} given malignancy" for label in "ABC"
    }


class Weighted(nn.Module):
    """logit = sum(weight x image) per logit: every attribution follows by hand."""

    def __init__(self, weight_LSS: torch.Tensor) -> None:
        super().__init__()
        self.weight_LSS = nn.Parameter(weight_LSS)
        self.heads = nn.Linear(1, 2)  # tells the device

    def forward(self, images_B3SS: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.einsum("bcxy,lxy->bl", images_B3SS, self.weight_LSS), None


@pytest.fixture(scope="module")
def linear(heads: tuple[HeadSpec, ...]) -> tuple[Attributor, np.ndarray]:
    """An attributor of a linear network at 128 pixels, and its weights in units of the grey."""
    facts = Preprocessing(size=128, mean=(0, 0, 0), std=(1, 1, 1))
    card = ModelCard(architecture="resnet18", heads=heads, preprocessing=facts, training={})
    weight = torch.randn((2, 128, 128), generator=torch.Generator().manual_seed(2))
    return Attributor(Weighted(weight), card), 3 * weight.numpy() / 255


def attribute(attributor: Attributor, method: str, head: str, pixels: np.ndarray) -> np.ndarray:
    logits = torch.zeros(2)  # which label leads is only asked of a categorical head
    return attributor.attribute(method, head, pixels, logits, torch.zeros(1, 1, 1)).map_hw


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    pixels = np.random.default_rng(3).integers(0, 256, (128, 128), dtype=np.uint8)
    pixels[0, 0] = 0
    return pixels


@pytest.mark.parametrize("head", [0, 1])
def test_integrated_gradients_by_hand(
    linear: tuple[Attributor, np.ndarray], grey: np.ndarray, head: int
) -> None:
    attributor, weight = linear
    found = attribute(attributor, "integrated_gradients", ("malignancy", "alnm")[head], grey)
    contribution = weight[head] * (grey - float(round(grey.mean())))
    assert found.shape == (16, 16)  # cells of 8 x 8 pixels
    assert found == pytest.approx(contribution.reshape(16, 8, 16, 8).sum(axis=(1, 3)), abs=1e-3)
    assert found.sum() == pytest.approx(contribution.sum(), abs=1e-2)


def test_occlusion_by_hand(linear: tuple[Attributor, np.ndarray], grey: np.ndarray) -> None:
    attributor, weight = linear
    found = attribute(attributor, "occlusion", "alnm", grey)
    assert found.shape == (8, 8)
    contribution = weight[1] * (grey - float(round(grey.mean())))
    # Windows of 32, moved by 16: 7 x 7; each cell has the mean of the windows that cover it.
    windows = np.array(
        [
            [contribution[16 * y : 16 * y + 32, 16 * x : 16 * x + 32].sum() for x in range(7)]
            for y in range(7)
        ]
    )
    corner, centre = windows[0, 0], windows[2:4, 3:5].mean()
    assert found[0, 0] == pytest.approx(corner, abs=1e-3)
    assert found[3, 4] == pytest.approx(centre, abs=1e-3)


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_cells_are_equal_where_the_side_is_no_multiple_of_them(
    method: str, heads: tuple[HeadSpec, ...]
) -> None:
    side = 300
    facts = Preprocessing(size=side, mean=(0, 0, 0), std=(1, 1, 1))
    card = ModelCard(architecture="resnet18", heads=heads, preprocessing=facts, training={})
    weight = torch.randn((2, side, side), generator=torch.Generator().manual_seed(2))
    grey = np.random.default_rng(3).integers(0, 256, (side, side), dtype=np.uint8)
    found = attribute(Attributor(Weighted(weight), card), method, "alnm", grey)
    values = 3 / 255 * weight[1].numpy().astype(float) * (grey - float(round(grey.mean())))
    if method == "occlusion":  # windows of 74, moved by 37, that end at the edge; their mean
        total, count = np.zeros((side, side)), np.zeros((side, side))
        for y in range(0, 8 * 37, 37):
            for x in range(0, 8 * 37, 37):
                window = np.s_[y : y + 74, x : x + 74]
                total[window] += values[window].sum()
                count[window] += 1
        # 8 cells of 37.5 pixels, that is of 75 halves
        halves = (total / count).repeat(2, axis=0).repeat(2, axis=1)
        expected = halves.reshape(8, 75, 8, 75).mean(axis=(1, 3))
    else:  # 16 cells of 18.75 pixels, that is of 75 quarters
        quarters = values.repeat(4, axis=0).repeat(4, axis=1) / 16
        expected = quarters.reshape(16, 75, 16, 75).sum(axis=(1, 3))
        assert found.sum() == pytest.approx(values.sum(), abs=1e-2)
    assert found == pytest.approx(expected, abs=1e-2)  # of logits of thousands, in float32


def test_under_a_max_constraint_the_logit_that_decided_is_explained_and_named(
    heads: tuple[HeadSpec, ...], grey: np.ndarray
) -> None:
    facts = Preprocessing(size=128, mean=(0, 0, 0), std=(1, 1, 1))
    card = ModelCard(
        architecture="resnet18",
        heads=heads,
        hierarchy="max_constraint",
        preprocessing=facts,
        training={},
    )
    weight = torch.randn((2, 128, 128), generator=torch.Generator().manual_seed(2))
    attributor = Attributor(Weighted(weight), card)
    attributor.network.heads.weight.data = torch.tensor([[-3.0], [2.0]])
    features = torch.tensor([[[1.0, 4.0]]])
    lifted, own = torch.tensor([-17.0, 40.0]), torch.tensor([60.0, 40.0])  # of both P rounds to 1

    def explained(method: str, head: str, logits: torch.Tensor) -> Attribution:
        return attributor.attribute(method, head, grey, logits, features)

    cam = explained("gradcam", "malignancy", lifted)
    assert cam.map_hw.tolist() == [[1.0, 4.0]]  # 2 x feature / 2 cells; its own would be empty
    assert cam.target == "logit of alnm, which decides malignancy"
    assert explained("gradcam", "alnm", lifted).target == "logit of alnm"
    assert explained("gradcam", "malignancy", own).target == "logit of malignancy"
    assert explained("gradcam", "malignancy", own).map_hw.tolist() == [[0.0, 0.0]]
    maps = [explained("occlusion", head, lifted).map_hw for head in ("malignancy", "alnm")]
    assert (maps[0] == maps[1]).all()
    assert (maps[0] != explained("occlusion", "malignancy", own).map_hw).any()


class GuidedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (x > 0)


class Guided(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return GuidedRelu.apply(x)


def test_guided_gradcam_by_hand(
    service: ScoringService, frames: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = inputs_of(service, frames)[:1].requires_grad_()
    network = service.attributor.network
    _, features = network(images)
    cams_2hw = torch.einsum("lc,chw->lhw", network.heads.weight[:2], features[0]).clamp(min=0) / 9
    target = int(cams_2hw.amax(dim=(1, 2)).argmax())  # an untrained head may have no response
    guided = Network(TRUNK, 5).eval()
    guided.load_state_dict(network.state_dict())
    for module in guided.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, Guided())
    (gradient,) = torch.autograd.grad(guided(images)[0][0, target], images)
    upsampled = nn.functional.interpolate(cams_2hw[target][None, None], (96, 96), mode="bilinear")[
        0, 0
    ]
    values = (gradient[0] * upsampled).sum(dim=0).abs().detach().numpy()
    expected = values.reshape(48, 2, 48, 2).sum(axis=(1, 3))
    (outcome,) = service.score(rows(frames[:1], {"method": "guided_gradcam", "grid": True}))
    found = np.array(outcome.body["heatmaps"][ALL[target]]["grid"])
    assert expected.max() > 0.01
    assert np.abs(found - expected).max() < 1e-4 * expected.max()


def test_integrated_gradients_of_the_network_add_up_to_its_logit(
    service: ScoringService, frames: list[bytes]
) -> None:
    asked = {"method": "integrated_gradients", "heads": ["malignancy"], "grid": True}
    some = rows(frames[1:3], asked)
    for row, outcome in zip(some, service.score(some), strict=True):
        item = service.preprocess(row, {})
        mean = np.full_like(item.input_SS, round(item.input_SS.mean()))
        pair = normalise(torch.from_numpy(np.stack([item.input_SS, mean])), Preprocessing(size=96))
        of_image, of_mean = service.attributor.network(pair)[0][:, 0].tolist()
        total = np.sum(outcome.body["heatmaps"]["malignancy"]["grid"])
        assert total == pytest.approx(of_image - of_mean, abs=0.05 * abs(of_image - of_mean) + 0.02)


def test_a_mixed_batch_pays_for_those_who_ask(
    service: ScoringService, frames: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        None,
        "gradcam",
        "occlusion:alnm+grid",
        None,
        "integrated_gradients:malignancy+full_frame",
    ]
    batch = [rows([png], text)[0] for png, text in zip(frames, asked, strict=True)]
    done = []
    attribute = service.attributor.attribute

    def count(method: str, head: str, *rest: Any) -> Attribution:
        done.append((method, head))
        return attribute(method, head, *rest)

    monkeypatch.setattr(service.attributor, "attribute", count)
    plain, cam, occlusion, also_plain, gradients = (
        outcome.body["heatmaps"] for outcome in service.score(batch)
    )
    assert plain == also_plain == {}
    assert done == [
        *(("gradcam", head) for head in ALL),
        ("occlusion", "alnm"),
        ("integrated_gradients", "malignancy"),
    ]
    assert list(cam) == list(ALL)
    assert set(cam["alnm"]) == {"method", "target", "box", "max", "png"}
    assert np.array(occlusion["alnm"]["grid"]).shape == (8, 8)
    assert "full_frame_png" not in occlusion["alnm"]
    frame = Image.open(io.BytesIO(gradients["malignancy"]["full_frame_png"]))
    crop = Image.open(io.BytesIO(gradients["malignancy"]["png"]))
    assert frame.size != crop.size
    alone = service.score([batch[2]])[0].body["heatmaps"]["alnm"]
    assert alone["grid"] == occlusion["alnm"]["grid"]


def test_a_failing_explanation_is_one_rows_error(
    service: ScoringService, frames: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    attribute = service.attributor.attribute

    def fail(method: str, head: str, *rest: Any) -> Attribution:
        if method == "occlusion":
            raise RuntimeError("out of something")
        if method == "guided_gradcam":
            return Attribution(np.full((2, 2), np.nan, np.float32), "x")
        return attribute(method, head, *rest)

    monkeypatch.setattr(service.attributor, "attribute", fail)
    asked = [None, "occlusion", "gradcam:alnm"]
    batch = [rows([png], text)[0] for png, text in zip(frames, asked, strict=False)]
    before, failed, after = service.score(batch)
    assert (before.status, after.status) == (200, 200)
    assert list(after.body["heatmaps"]) == ["alnm"]
    assert (failed.status, failed.body["code"]) == (500, "explanation_failed")
    assert (failed.body["stage"], failed.body["field"]) == ("explanation", "explain")


def test_a_map_that_is_not_finite_is_refused(
    service: ScoringService, frames: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = service.attributor.network.heads.weight
    monkeypatch.setattr(weight, "data", weight.data * math.inf)
    (item,) = [service.preprocess(rows(frames[:1], "gradcam")[0], {})]
    forward = service.inference([item])
    (found,) = stages.explain([item], forward, service.attributor)
    assert isinstance(found, RowError)
    assert found.code == "explanation_failed"


def test_online_a_batch_has_its_time_and_no_more(
    service: ScoringService, frames: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.service.EXPLAIN_WITHIN_S", -1.0)
    asked = ["occlusion:alnm", "gradcam:alnm", None]
    batch = [rows([png], text)[0] for png, text in zip(frames, asked, strict=False)]
    context = FakeContext([{}] * 3)
    bodies = [json.loads(body) for body in service.handle(batch, context)]
    assert [context.status[index] for index in range(3)] == [503, 200, 200]
    assert (bodies[0]["code"], bodies[0]["field"]) == ("explanation_too_long", "explain")
    # In a batch job nobody waits.
    assert [outcome.status for outcome in service.score(batch)] == [200, 200, 200]


class WatchedLock:
    """A lock that tells, before it is taken, that somebody wants it."""

    def __init__(self) -> None:
        self.wanted = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.wanted.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_map_that_waited_for_another_until_the_deadline_is_not_begun(
    linear: tuple[Attributor, np.ndarray], grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributor, _ = linear
    lock, clock, maps = WatchedLock(), [0.0], []

    def slow(*_: object) -> torch.Tensor:
        for _ in range(2):  # the other thread waits for the lock, too
            assert lock.wanted.acquire(timeout=60)
        clock[0] = 2.0
        maps.append(1)
        return torch.ones(1, 1)

    monkeypatch.setattr(attributor, "_lock", lock)
    monkeypatch.setattr(attribution, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setitem(attribution._CAPTUM, "occlusion", slow)
    given = ("occlusion", "alnm", grey, torch.zeros(2), torch.zeros(1, 1, 1), 1.0)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(attributor.attribute, *given) for _ in range(2)]
        refused = [future.exception() for future in both]
    assert maps == [1]
    (error,) = [it for it in refused if it is not None]
    assert isinstance(error, ExplanationTooLong)
    assert error.field == "explain"


def test_explaining_does_not_disturb_scoring(service: ScoringService, frames: list[bytes]) -> None:
    plain = rows(frames, None)
    expected = [outcome.body["heads"] for outcome in service.score(plain)]
    errors: list[object] = []

    def explain() -> None:
        for method in METHODS:
            outcomes = service.score(rows(frames[:1], f"{method}:alnm"))
            errors.extend(outcome.body for outcome in outcomes if outcome.status != 200)

    threads = [threading.Thread(target=explain) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert [outcome.body["heads"] for outcome in service.score(plain)] == expected
    assert errors == []
    hooks = [
        hook
        for network in (service.attributor.network, service.attributor._twin)
        for module in network.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    assert hooks == []
    assert all(not parameter.requires_grad for parameter in service.attributor._twin.parameters())


def darkness_network() -> Network:
    """A ResNet18 by hand: its features are how dark the picture is there, the rest is zero.

    Of its blocks the shortcuts alone are left, which halve the map.
    """
    network = Network("resnet18", 1).eval()
    stem, normaliser, *rest = network.trunk[:4]
    shortcuts = [layer[0].downsample for layer in network.trunk[5:]]
    with torch.no_grad():
        for module in (stem, normaliser, *(it for shortcut in shortcuts for it in shortcut)):
            nn.init.zeros_(module.weight)
        stem.weight[0] = -1 / stem.weight[0].numel()  # the mean of 7 x 7, darker is more
        normaliser.weight[0] = normaliser.running_var[0] = 1
        normaliser.bias[0] = 0
        for convolution, passing in shortcuts:
            convolution.weight[0, 0] = 1
            passing.weight[0] = 1
        nn.init.zeros_(network.heads.weight)
        network.heads.weight[0, 0] = 1
    passed = (nn.Sequential(shortcut, nn.ReLU()) for shortcut in shortcuts)
    network.trunk = nn.Sequential(stem, normaliser, *rest, *passed)
    return network


@pytest.mark.parametrize("method", METHODS)
def test_on_phantom_lesions_the_map_lies_on_the_lesion(phantom: Cohort, method: str) -> None:
    """Lesions are darker than the tissue, and the network answers to darkness.

    The box is a quarter of the window and stands in its upper left part: a map that is turned,
    mirrored or shifted fails.
    """
    card = ModelCard(
        architecture="resnet18",
        heads=(HeadSpec(name="malignancy", target="malignant", labels=("no", "yes")),),
        preprocessing=Preprocessing(size=128),
        training={},
    )
    network = darkness_network()
    attributor = Attributor(network, card)
    shares, elsewhere = [], []
    for index in (0, 13):
        frame = np.asarray(Image.open(phantom.image_path(index)).convert("L"))
        x_min, y_min, x_max, y_max = phantom.roi(index)
        width, height = x_max - x_min, y_max - y_min
        left, top = max(0, x_min - width // 6), max(0, y_min - height // 6)
        window = frame[top : top + 2 * height, left : left + 2 * width]
        input_SS = np.array(Image.fromarray(window).resize((128, 128), Image.Resampling.BILINEAR))
        images = normalise(torch.from_numpy(input_SS[None]), card.preprocessing)
        with torch.inference_mode():
            logits, features = network(images)
        map_hw = attributor.attribute(method, "malignancy", input_SS, logits[0], features[0]).map_hw
        value = np.asarray(
            Image.fromarray(map_hw.clip(min=0)).resize(
                window.shape[::-1], Image.Resampling.BILINEAR
            )
        )
        inside = np.zeros(window.shape, bool)
        inside[y_min - top : y_max - top, x_min - left : x_max - left] = True
        shares.append(value[inside].sum() / value.sum() / inside.mean())
        elsewhere.append(value[inside[::-1, ::-1]].sum() / value.sum() / inside.mean())
    assert min(shares) > 1.3  # times what chance would put there
    assert np.mean(shares) > 1.5 * np.mean(elsewhere)
