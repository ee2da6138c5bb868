"""Two nodes and a gateway before them, of a whole file of tests."""

from collections.abc import Iterator

import pytest

from tests.archives.behind import V1, V2, Behind, behind
from tests.archives.standin import StandIn


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[StandIn]]:
    folder = tmp_path_factory.mktemp("n")
    both = [StandIn(folder, name, versions={"1.0": 1, "2.0": 1}) for name in ("a", "b")]
    for node in both:
        node.start()
    yield both
    for node in both:
        node.stop()


@pytest.fixture(scope="module")
def gateway(nodes: list[StandIn], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    state = tmp_path_factory.mktemp("g")
    settings = [node.settings() for node in nodes]
    with behind(settings, state, candidate=V2, serves=[V1, V2]) as running:
        yield running
    left = {path.name for path in (state / "gateway").iterdir()}
    assert not [name for name in left if name.startswith("s") and name[1:].isdigit()]
