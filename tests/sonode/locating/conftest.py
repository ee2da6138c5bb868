"""A locator with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sonode.locating import detector as detectors
from tests.batch.conftest import s3

__all__ = ["s3"]


@pytest.fixture(scope="session")
def locator(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A locator of seeded random weights, whose proposals are anywhere."""

    def make(folder: Path) -> None:
        folder.mkdir()
        torch.manual_seed(0)
        cohort = {"name": "none", "sha256": "0" * 64}
        card = detectors.Card(
            size=64,
            min_confidence=0.0,
            training={"split_seed": 0, "cohort": cohort},
            measured={},
        )
        detector = detectors.build(64)
        with torch.no_grad():
            detector.head.regression_head.bbox_reg.bias.fill_(1.0)  # else all boxes are empty
        detectors.write(folder, detector, card)

    return once("locator", make)
