"""Servers of these tests have sockets below their folder, whose path may have 103 bytes."""

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(short_path: Path) -> Path:
    """As everywhere, but short: the names of user, worker and test are not in it."""
    return short_path
