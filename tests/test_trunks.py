"""A trunk is one word of configuration: all that is done with a ResNet is done with any other."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from archives.packing.loader import load_archive
from archives.packing.members import ArchiveError
from archives.packing.pack import pack
from handlers.errors import ExplanationFailed
from handlers.explain.attribution import Attributor
from model_def import checkpoint
from model_def.network import Network, joined
from model_def.preprocessing import normalise
from tests.command_line import sonode
from train.cohorts.cohort import Cohort

HEADS = ("malignancy", "alnm")
TRUNKS = (("tf_efficientnet_lite0", 1), ("test_convnext", 3))
"""With how many members."""


@pytest.fixture(scope="module", params=TRUNKS, ids=lambda its: f"{its[1]}-{its[0]}")
def archive(
    request: pytest.FixtureRequest,
    card: checkpoint.ModelCard,
    once: Callable[[str, Callable[[Path], object]], Path],
) -> Path:
    """An archive with random weights and features as a trained network has them."""
    architecture, members = request.param
    name = f"{architecture}-{members}"

    def one() -> Network:
        network = Network(architecture, 2)
        shades = torch.linspace(0.2, 1, 8)[:, None, None]
        crops_BSS = (torch.rand(8, 64, 64) * shades * 255).to(torch.uint8)
        with torch.no_grad():
            for _ in range(20):  # else each layer's values are far from what the next one expects
                network(normalise(crops_BSS, card.preprocessing))
            network.heads.weight.mul_(4)
        return network

    def make(folder: Path) -> None:
        torch.manual_seed(2)
        networks = [one() for _ in range(members)]
        network = networks[0] if members == 1 else joined(architecture, networks)
        changed = card.model_copy(update={"architecture": architecture, "members": members})
        checkpoint.save(folder / "checkpoint", network, changed)
        pack(folder / "checkpoint", name, "1.0", folder)

    return once(name, make) / f"{name}-1.0.mar"


@pytest.fixture(scope="module")
def rows(phantom: Cohort) -> list[dict[str, object]]:
    return [{"image": phantom.image_path(i).read_bytes(), "explain": "gradcam"} for i in range(4)]


Scored = tuple[Any, Any, Any, float]


def scored(archive: Path, rows: list[dict[str, object]], engine: str) -> Scored:
    """Probabilities, Grad-CAM peaks and spreads by row and head; what the engine allows."""
    with load_archive(archive, {"engine": engine, "fallback": [], "threads": 1}) as loaded:
        bodies = [outcome.body for outcome in loaded.score(rows)]
        tolerance = loaded.service.engine.tolerance
    scores = [[it["heads"][head]["probability"] for head in HEADS] for it in bodies]
    peaks = [[it["heatmaps"][head]["max"] for head in HEADS] for it in bodies]
    spreads = [[it["heads"][head]["spread"] for head in HEADS] for it in bodies]
    return np.array(scores), np.array(peaks), np.array(spreads, float), tolerance


@pytest.fixture(scope="module")
def eager(archive: Path, rows: list[dict[str, object]]) -> Scored:
    return scored(archive, rows, "eager")


def test_auto_serves_it_as_plain_torch_does(
    archive: Path, rows: list[dict[str, object]], eager: Scored
) -> None:
    """Its golden examples hold, and scores and heat maps are those of plain torch."""
    scores, peaks, spreads, tolerance = scored(archive, rows, "auto")
    assert tolerance == 1e-3  # float32
    assert np.abs(scores - eager[0]).max() <= tolerance
    assert eager[0].std(axis=0).max() > 2 * tolerance  # an exchange of rows would show
    assert eager[1].max() > 0
    assert np.abs(peaks - eager[1]).max() <= 1e-3 * eager[1].max()
    np.testing.assert_allclose(spreads, eager[2], atol=2 * tolerance)  # NaN of one network alone


def test_members_say_how_far_apart_they_are(
    archive: Path, rows: list[dict[str, object]], eager: Scored
) -> None:
    with load_archive(archive, {"threads": 1}) as loaded:
        card, service = loaded.service.card, loaded.service
        prepared = [service.preprocess(row, {}) for row in rows]
        with torch.inference_mode():
            features_BChw = service.inference(prepared).features_BChw
    if card.members == 1:
        assert np.isnan(eager[2]).all()
        return
    # Each member by itself, with a third of the channels and of the weight.
    network = service.attributor.network
    weights = network.heads.weight.detach().chunk(3, dim=1)
    logits = [
        features.mean(dim=(2, 3)) @ (3 * weight).T + bias
        for features, weight, bias in zip(
            features_BChw.chunk(3, dim=1), weights, network.member_bias_ML, strict=True
        )
    ]
    expected = torch.stack(logits).sigmoid().std(dim=0).numpy()
    np.testing.assert_allclose(eager[2], expected, atol=1e-5)
    assert expected.min() > 1e-3


def test_bfloat16_is_within_its_tolerance_or_refused(
    archive: Path, rows: list[dict[str, object]], eager: Scored
) -> None:
    try:
        scores, _, _, tolerance = scored(archive, rows, "openvino")
    except ArchiveError as error:
        assert re.search(r"golden .* the limit is 0\.01; choose a float32 engine", str(error))
    else:
        assert np.abs(scores - eager[0]).max() <= 2 * tolerance  # the examples are other images


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a minute of CPU time, which a busy machine stretches to five
def test_it_is_compared_with_a_resnet(
    archive: Path, archive_path: Path, phantom: Cohort, tmp_path: Path
) -> None:
    uris = [str(phantom.image_path(i)) for i in range(8)]
    pd.DataFrame({"image_uri": uris}).to_parquet(tmp_path / "m.parquet")
    done = sonode("compare", archive_path, archive, tmp_path / "m.parquet", tmp_path / "out")
    assert done.returncode in (0, 1), done.stderr  # 1: their scores differ, as they should
    assert json.loads((tmp_path / "out" / "compare.json").read_text())


class GuidedRelu6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 6)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradient.clamp(min=0) * ((x > 0) & (x < 6))


class Guided6(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return GuidedRelu6.apply(x)


def test_guided_gradcam_guides_through_relu6_by_hand(card: checkpoint.ModelCard) -> None:
    """Captum guides through ReLUs alone, and says nothing of others."""
    torch.manual_seed(1)
    network = Network("tf_efficientnet_lite0", 2)
    crop_SS = torch.randint(0, 256, (64, 64), dtype=torch.uint8)
    image_13SS = normalise(crop_SS[None], card.preprocessing)
    with torch.no_grad():
        for _ in range(20):
            network(image_13SS.repeat(2, 1, 1, 1) + torch.randn(2, 3, 64, 64) / 5)
    network.eval().requires_grad_(False)
    network.heads.weight.abs_()
    logits_BL, features_BChw = network(image_13SS)
    found = Attributor(network, card).attribute(
        "guided_gradcam", "malignancy", crop_SS.numpy(), logits_BL[0], features_BChw[0]
    )
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, Guided6())
    image_13SS.requires_grad_()
    (gradient_13SS,) = torch.autograd.grad(network(image_13SS)[0][0, 0], image_13SS)
    cam_hw = torch.einsum("c,chw->hw", network.heads.weight[0], features_BChw[0]).clamp(min=0) / 4
    wide_11SS = nn.functional.interpolate(cam_hw[None, None], (64, 64), mode="bilinear")
    expected_SS = (gradient_13SS * wide_11SS).sum(dim=(0, 1)).abs().numpy()
    assert expected_SS.max() > 0
    assert np.abs(found.map_hw - expected_SS).max() < 1e-4 * expected_SS.max()


def test_guided_gradcam_is_refused_without_relus(card: checkpoint.ModelCard) -> None:
    network = Network("test_convnext", 2).eval()
    crop_SS = np.zeros((64, 64), np.uint8)
    logits_BL, features_BChw = network(
        normalise(torch.from_numpy(crop_SS)[None], card.preprocessing)
    )
    with pytest.raises(
        ExplanationFailed, match="guided_gradcam is defined for networks with ReLUs"
    ):
        Attributor(network, card).attribute(
            "guided_gradcam", "malignancy", crop_SS, logits_BL[0], features_BChw[0]
        )


def test_a_node_without_timm_refuses_the_archive_in_a_line(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with (
        pytest.raises(ArchiveError, match=r"model\.json: .* timm, which is not installed") as error,
        load_archive(archive),
    ):
        pass
    assert "\n" not in str(error.value)
