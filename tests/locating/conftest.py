"""A locator with random weights, and one that finds the phantom's bright square by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from locating import detector as detectors


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
        detectors.write(folder, detectors.build(64), card)

    return once("locator", make)
