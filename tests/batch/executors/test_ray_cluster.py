"""Sharing out a cluster, and addresses of none: without Ray."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from batch.executors.ray_cluster import joined
from batch.executors.ray_resources import Fleet, fleet
from sonode.console import UserError

HEAD = {"memory": 1e9}  # a head that is given no work
CPUS = {"CPU": 16.0}
TWO = {"CPU": 16.0, "GPU": 2.0}
EIGHT = {"CPU": 96.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus", "expected"),
    [
        pytest.param([CPUS], None, None, None, (1, 16, 0), id="a node without GPUs: one worker"),
        pytest.param([HEAD, CPUS, CPUS], None, None, None, (2, 16, 0), id="one for each node"),
        pytest.param([CPUS, {"CPU": 4.0}], None, None, None, (5, 4, 0), id="by the smallest"),
        pytest.param([CPUS], None, 5, None, (3, 5, 0), id="as many as fit"),
        pytest.param([CPUS], 2, 5, None, (2, 5, 0), id="no more than asked for"),
        pytest.param([TWO], None, None, None, (2, 8, 1), id="one for each GPU"),
        pytest.param([TWO, EIGHT], None, None, None, (10, 8, 1), id="two kinds of nodes"),
        pytest.param([CPUS, TWO], None, None, None, (2, 8, 1), id="none where no GPU is"),
        pytest.param([TWO], None, None, 0.5, (4, 4, 0.5), id="two share a GPU"),
        pytest.param([TWO], None, None, 2, (1, 16, 2), id="two GPUs"),
        pytest.param([TWO], None, None, 0, (1, 16, 0), id="the GPUs left alone"),
        pytest.param([{"CPU": 2.0, "GPU": 4.0}], None, None, None, (2, 1, 1), id="few CPUs"),
    ],
)
def test_a_cluster_is_shared_out(
    nodes: list[dict[str, float]],
    workers: int | None,
    cpus: int | None,
    gpus: float | None,
    expected: tuple[int, int, float],
) -> None:
    assert fleet(nodes, workers, cpus, gpus) == Fleet(*expected)


def test_a_worker_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(
        UserError, match="--worker-cpus 17, --worker-gpus 0: no Ray node has as many"
    ):
        fleet([CPUS], None, 17, None)
    with pytest.raises(
        UserError, match="--worker-cpus 1, --worker-gpus 1: no Ray node has as many"
    ):
        fleet([HEAD, CPUS], None, None, 1)
    with pytest.raises(UserError, match=r"--worker-gpus 1\.5: give an integer, or a fraction"):
        fleet([EIGHT], None, None, 1.5)


@pytest.mark.parametrize("address", ["auto", "ray://head:10001", "head", "head:", ":6379", "a/b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"give host:port as `ray start --head` prints it"):
        joined(address).__enter__()


def test_an_address_that_nobody_answers_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=f"Ray cluster {address}: no answer") as caught:
        joined(None).__enter__()
    assert "\n" not in str(caught.value)
