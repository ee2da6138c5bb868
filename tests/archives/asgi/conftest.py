"""A node of the second server that serves the odd model; a store with two versions of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from archives.asgi.node import AsgiNode
from tests.archives.asgi.odd import CONFIG, ODD
from tests.archives.serving.test_serve import write_archive
from tests.processes import assert_no_process_about


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for version in ("1.0", "2.0"):
        write_archive(folder / f"odd-{version}.mar", "odd", ODD, version, CONFIG)
    return folder


@pytest.fixture(scope="module")
def node(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiNode]:
    run_dir = tmp_path_factory.mktemp("node")
    settings = {"job_queue_size": "8"}
    with AsgiNode(store, {"odd": "odd-1.0.mar"}, run_dir, settings=settings) as started:
        yield started
    assert_no_process_about(run_dir)
