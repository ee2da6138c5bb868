"""What several rooms test with: a small phantom cohort, a checkpoint, an archive of it."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

from archives.build import pack
from model_def import checkpoint
from model_def.heads import HeadSpec
from model_def.network import Network
from model_def.preprocessing import Preprocessing
from train.cohort import Cohort
from train.importers import import_voc
from train.phantom import write_phantom

HEADS = (
    HeadSpec(name="malignancy", target="malignant", labels=("benign", "malignant")),
    HeadSpec(name="alnm", target="alnm", labels=("no ALNM", "ALNM"), parent="malignancy"),
)


def pytest_configure() -> None:
    """Whatever is installed, tests run on the reference engine unless they name another."""
    os.environ.setdefault("SONODE_HANDLER_ENGINE", "eager")
    hypothesis.settings.register_profile("sonode", deadline=None)  # no test asserts a speed
    hypothesis.settings.load_profile("sonode")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder like `tmp_path`, of a path that leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="sonode-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def heads() -> tuple[HeadSpec, ...]:
    """The paper's two heads."""
    return HEADS


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """A synthetic cohort of 14 patients; every part of the split has both malignancies."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, 14, 0)
    return import_voc(folder, folder, name="phantom", synthetic=True)


@pytest.fixture(scope="session")
def card() -> checkpoint.ModelCard:
    """A card of an untrained ResNet18 at 64 pixels."""
    return checkpoint.ModelCard(
        architecture="resnet18",
        heads=HEADS,
        preprocessing=Preprocessing(size=64, context=0.1),
        training={
            "labels": {head.name: dict(zip(head.labels, (3, 4), strict=True)) for head in HEADS},
            "cohort": {"name": "phantom", "sha256": "0" * 64, "synthetic": True},
        },
    )


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory, card: checkpoint.ModelCard) -> Path:
    """A checkpoint with seeded random weights whose scores differ from image to image."""
    torch.manual_seed(0)
    network = Network(card.architecture, sum(head.n_logits for head in card.heads))
    with torch.no_grad():
        network.heads.weight.mul_(20)
    folder = tmp_path_factory.mktemp("training") / "checkpoint"
    checkpoint.save(folder, network, card)
    return folder


@pytest.fixture(scope="session")
def archive_path(tmp_path_factory: pytest.TempPathFactory, checkpoint_folder: Path) -> Path:
    """That checkpoint, packed."""
    return pack(checkpoint_folder, "tiny", "1.0", tmp_path_factory.mktemp("store"))


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """`pixels` as an encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def frame() -> np.ndarray:
    """A grey frame of 120 x 80 pixels with texture."""
    return np.random.default_rng(1).integers(0, 256, (80, 120), dtype=np.uint8)
