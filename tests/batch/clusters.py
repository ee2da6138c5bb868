"""A Ray cluster of nodes on this machine, and fake archives that its workers can open.

The nodes are real: a raylet each, with its own workers, killed as a machine that loses power.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.batch.conftest import FakeArchive

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"


class RayCluster:
    """A head without CPUs, and nodes that are added to it; for as long as the block lasts.

    `environment` must be in `os.environ` by then, and before Ray is imported.
    """

    def __init__(self, folder: Path) -> None:
        self.environment = {
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback
            "RAY_worker_niceness": "0",  # 15 else: it would starve beside other tests
        }

    def __enter__(self) -> RayCluster:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self._cluster.add_node(num_cpus=0, include_dashboard=False, node_ip_address=LOOPBACK)
        self.address: str = self._cluster.address
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    def add(self, *, cpus: int, gpus: int = 0) -> Any:
        """Start a node."""
        return self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, node_ip_address=LOOPBACK)

    def kill(self, node: Any) -> None:
        """End a node and all that runs on it with SIGKILL."""
        self._cluster.remove_node(node, allow_graceful=False)


class ClusterArchive(FakeArchive):
    """Does what the bytes of an image say, for the first time only where they end in "once"."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def preprocess(self, row: Mapping[str, object]) -> Any:
        image = row["image"]
        if image == b"die" or (image == b"die once" and self._is_first(image)):
            os.kill(os.getpid(), signal.SIGKILL)
        if image == b"lose the device once" and self._is_first(image):
            self.lost = True
        if image == b"slow":
            self._wait_for_two()
            time.sleep(0.2)
        known = image in (b"die once", b"lose the device once", b"slow")
        return super().preprocess({**row, "image": b"p=0.5"} if known else row)

    def score_prepared(self, prepared: Any) -> Any:
        if self.lost:
            raise RuntimeError("of patient 4711")
        return super().score_prepared(prepared)

    def _wait_for_two(self) -> None:
        """Until a second worker is there, however long it takes to load; alone, not at all."""
        loads = self.folder / "loads"
        while loads.is_dir() and len(list(loads.iterdir())) < 2:
            time.sleep(0.05)

    def _is_first(self, image: bytes) -> bool:
        try:
            (self.folder / image.decode()).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@contextmanager
def fake_opened(folder: str, settings: Mapping[str, object]) -> Iterator[ClusterArchive]:
    """Open the fake archive; tells in `folder`/loads where, with what, and when it was closed."""
    import ray

    loads = Path(folder, "loads")
    loads.mkdir(exist_ok=True)
    told = loads / f"{os.getpid()} open"
    told.write_text(
        f"{ray.get_runtime_context().get_node_id()} "
        f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {dict(settings)}"
    )
    yield ClusterArchive(Path(folder))
    told.rename(loads / f"{os.getpid()} closed")


@contextmanager
def unlike_opened(folder: str, settings: Mapping[str, object]) -> Iterator[ClusterArchive]:
    """Open an archive that is another one at every place but the first."""
    with fake_opened(folder, settings) as archive:
        if not archive._is_first(b"loaded"):
            archive.sha256 = "cd" * 32
        yield archive
