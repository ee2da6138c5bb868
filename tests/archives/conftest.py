"""What these tests share: a short folder, and a node that stands in for TorchServe."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archives.standin import StandIn


@pytest.fixture
def tmp_path(short_path: Path) -> Path:
    """As everywhere, but short: the names of user, worker and test are not in it.

    Servers have sockets below it, whose path may have 103 bytes.
    """
    return short_path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(tmp_path / "n", "a", versions={"1.0": 1, "2.0": 1})
    made.start()
    yield made
    made.stop()
