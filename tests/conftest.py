"""What several folders test with: a small phantom cohort, a checkpoint, an archive of it."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from archives.packing.pack import pack
from model_def import checkpoint
from model_def.heads import HeadSpec
from model_def.network import Network
from model_def.preprocessing import Preprocessing
from sonode.demo.local_s3 import LocalS3
from train.cohorts.cohort import Cohort, load_cohort
from train.importers.phantom import write_phantom
from train.importers.table import import_voc

HEADS = (
    HeadSpec(name="malignancy", target="malignant", labels=("benign", "malignant")),
    HeadSpec(name="alnm", target="alnm", labels=("no ALNM", "ALNM"), parent="malignancy"),
)


TRUNK = "test_resnet"
"""A ResNet of timm's with 0.4 million weights, for whatever does not test the network itself: an
archive of it has 2 MB, and it trains in a third of the time of a ResNet18."""


def pytest_configure() -> None:
    """Whatever is installed, tests run on the reference engine unless they name another."""
    os.environ.setdefault("SONODE_HANDLER_ENGINE", "eager")
    hypothesis.settings.register_profile("sonode", deadline=None)  # no test asserts a speed
    hypothesis.settings.load_profile("sonode")


@pytest.fixture(scope="module", autouse=True)
def no_setting_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A file of tests leaves no setting in the environment: a later file would have it, too."""

    def settings() -> dict[str, str]:  # libraries have variables of their own
        ours = ("SONODE_", "AWS_", "OMP_")
        return {name: value for name, value in os.environ.items() if name.startswith(ours)}

    before = settings()
    yield
    assert settings() == before, f"{request.path.name} leaves other variables"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder like `tmp_path`, of a path that leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="sonode-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def once(
    tmp_path_factory: pytest.TempPathFactory, testrun_uid: str, worker_id: str
) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a folder once for all processes of a run: nobody may change what is in it."""
    of_this_process = tmp_path_factory.getbasetemp()
    base = of_this_process if worker_id == "master" else of_this_process.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = base / f"shared-{testrun_uid}" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                # It has its name only when it is whole; the archive and the cohort name no place.
                partial = folder.with_suffix(".partial")
                make(partial)
                partial.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def heads() -> tuple[HeadSpec, ...]:
    """The paper's two heads."""
    return HEADS


@pytest.fixture(scope="session")
def phantom(once: Callable[[str, Callable[[Path], object]], Path]) -> Cohort:
    """A synthetic cohort of 14 patients; every part of the split has both malignancies."""

    def make(folder: Path) -> None:
        write_phantom(folder, 14, 0)
        import_voc(folder, folder, name="phantom", synthetic=True)

    return load_cohort(once("phantom", make))


@pytest.fixture(scope="session")
def card() -> checkpoint.ModelCard:
    """A card of an untrained network of 64 pixels."""
    return checkpoint.ModelCard(
        architecture=TRUNK,
        heads=HEADS,
        preprocessing=Preprocessing(size=64, context=0.1),
        training={
            "labels": {head.name: dict(zip(head.labels, (3, 4), strict=True)) for head in HEADS},
            "cohort": {"name": "phantom", "sha256": "0" * 64, "synthetic": True},
        },
    )


def untrained(
    folder: Path,
    card: checkpoint.ModelCard,
    spread: float,
    malignancy: float = 0.0,
    *,
    seed: int = 0,
) -> None:
    """Write a checkpoint with seeded random weights whose scores differ from image to image.

    `spread` multiplies the logits, `malignancy` is added to the first head's.
    """
    torch.manual_seed(seed)
    network = Network(card.architecture, sum(head.n_logits for head in card.heads))
    with torch.no_grad():
        network.heads.weight.mul_(spread)
        network.heads.bias[0] += malignancy
    checkpoint.save(folder, network, card)


@pytest.fixture(scope="session")
def checkpoint_folder(
    once: Callable[[str, Callable[[Path], object]], Path], card: checkpoint.ModelCard
) -> Path:
    """A checkpoint of that card; the phantom's lesions are malignant with 0.55 to 0.85."""
    return once("checkpoint", lambda folder: untrained(folder, card, 60, malignancy=2.0))


@pytest.fixture(scope="session")
def resnet_folder(
    once: Callable[[str, Callable[[Path], object]], Path], card: checkpoint.ModelCard
) -> Path:
    """A checkpoint of a ResNet18: `auto` takes bfloat16 for torchvision's ResNets alone."""
    changed = card.model_copy(update={"architecture": "resnet18"})
    return once("resnet18", lambda folder: untrained(folder, changed, 20))


@pytest.fixture(scope="session")
def archive_path(
    once: Callable[[str, Callable[[Path], object]], Path], checkpoint_folder: Path
) -> Path:
    """That checkpoint, packed."""
    store = once("store", lambda folder: pack(checkpoint_folder, "tiny", "1.0", folder))
    return store / "tiny-1.0.mar"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """A real S3 server; it works while nobody asks it, too, so that it ends with its tests."""
    folder: Path = tmp_path_factory.mktemp("seaweedfs")
    with LocalS3(folder, access_key="the-key", secret_key="the-secret", bucket="studies") as s3:
        yield s3


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """`pixels` as an encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def frame() -> np.ndarray:
    """A grey frame of 120 x 80 pixels with texture."""
    return np.random.default_rng(1).integers(0, 256, (80, 120), dtype=np.uint8)
