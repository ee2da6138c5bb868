"""The shared archive, unpacked, and its service."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.service import ScoringService
from tests.handlers.contexts import context_of


@pytest.fixture(scope="module")
def unpacked(archive_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(archive_path) as archive:
        archive.extractall(folder)
    yield folder


@pytest.fixture(scope="module")
def service(unpacked: Path) -> ScoringService:
    made = ScoringService()
    made.initialize(context_of(unpacked, engine="eager"))
    return made
