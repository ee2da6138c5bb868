"""A real Ray cluster of two nodes on this machine: what the local executor gives, whatever dies."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import batch.plan
import batch.run
from batch import layout
from batch.executors.ray_executor import RayExecutor, connected
from batch.executors.ray_worker import Worker, portable
from batch.scoring.fetching import Limits
from batch.scoring.job import Job
from batch.storage import objects
from sonode.console import UserError
from sonode.demo.local_s3 import LocalS3
from tests.batch.clusters import ClusterArchive, RayCluster, fake_opened, unlike_opened
from tests.batch.conftest import put_table
from tests.batch.test_run import PLACE, put_images, rows_of, run
from tests.processes import assert_no_process_about

pytestmark = [
    pytest.mark.live,
    # Of Ray 2.60 itself, which leaves files and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = 40
TWO_NODES = {"workers": 2, "cpus": 2, "gpus": 0}  # one worker on each


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, server: LocalS3
) -> Iterator[tuple[RayCluster, list[Any]]]:
    """Two nodes, the first with two GPUs that only Ray believes in; and what is on the others.

    Ray leaves its own signal stack to this process, and its handlers in place of faulthandler's.
    On it a signal that Python handles has ended the process without a word once AMX was in use, so
    no test in this process uses torch's data loader with workers, which sets such a handler.
    """
    folder = Path("/tmp") / f"sonode-ray-{os.getpid()}"  # sockets have short paths
    folder.mkdir()
    try:
        with pytest.MonkeyPatch.context() as patch:
            ray_cluster = RayCluster(folder)
            for name, value in {**server.environment, **ray_cluster.environment}.items():
                patch.setenv(name, value)
            with ray_cluster:
                yield ray_cluster, [ray_cluster.add(cpus=2, gpus=2), ray_cluster.add(cpus=2)]
        assert_no_process_about(folder)
    finally:
        gc.collect()  # what Ray leaves open is told of here, and not in another room's tests
        shutil.rmtree(folder)


class Night(NamedTuple):
    """A manifest, and one place for its results."""

    folder: str
    fakes: Path
    manifest: str
    out: str


@pytest.fixture
def night(tmp_path: Path) -> Callable[..., Night]:
    """Forty rows in shards of three, some of them with an image of their own."""

    def make(special: dict[int, bytes], folder: str = str(tmp_path)) -> Night:
        images = [special.get(row, b"p=0.%02d" % row) for row in range(ROWS)]
        uris = put_images(folder, *images)
        ids = {
            "study_id": [f"s{row}" for row in range(ROWS)],
            "lesion_id": [f"l{row % 7}" for row in range(ROWS)],
            "patient_id": ["p"] * ROWS,
        }
        columns = {**ids, "image_uri": uris}
        manifest = put_table(objects.join(folder, "m.parquet"), columns)
        return Night(folder, tmp_path, manifest, objects.join(folder, "out"))

    return make


def on_ray(
    night: Night,
    cluster: RayCluster,
    *,
    opener: Any = fake_opened,
    watch: Any = None,
    **options: Any,
) -> Any:
    size = {**TWO_NODES, **options.pop("size", {})}
    with connected(cluster.address, str(night.fakes), {}, opener=opener, **size) as executor:
        used = executor if watch is None else Watched(executor, *watch)
        return run(night.manifest, night.out, executor.archive, executor=used, **options)


class Watched:
    """An executor, and what is done once it has told of so many rows."""

    def __init__(self, executor: RayExecutor, rows: int, act: Callable[[], None]) -> None:
        self.executor, self.rows, self.act = executor, rows, act

    def run(self, *given: Any) -> Iterator[str | None]:
        for number, code in enumerate(self.executor.run(*given)):
            if number == self.rows:
                self.act()
            yield code


def alone(night: Night, **options: Any) -> str:
    """The same by the local executor, undisturbed; where its results are."""
    out = objects.join(night.folder, "alone")
    (night.fakes / "die once").touch()
    (night.fakes / "lose the device once").touch()
    run(night.manifest, out, ClusterArchive(night.fakes), **options)
    return out


def assert_the_same(night: Night, out: str) -> None:
    """Every row once, every column but those of the clock, and the parts by their names."""
    found, expected = rows_of(night.out), rows_of(out)
    for row in (*found, *expected):
        for head in ("malignancy", "alnm"):
            uri = row.pop(f"{head}_heatmap_uri", None)
            if uri is not None:  # named by its place; the picture is what counts
                row[f"{head}_heatmap"] = objects.read(uri).data
    assert found == expected
    assert len(found) == ROWS
    for name in ("lesion_id", "study_id", "patient_id"):
        one, other = (objects.join(it, layout.units(PLACE, name)) for it in (night.out, out))
        assert objects.read(one).data == objects.read(other).data
    names = [
        [
            uri.removeprefix(place)
            for uri in objects.list_files(place, deep=True)
            if not uri.endswith(".partial")  # of a worker that died; no reader takes them
        ]
        for place in (night.out, out)
    ]
    assert names[0] == names[1]


@pytest.fixture
def loads(tmp_path: Path) -> Callable[..., list[str]]:
    """What the workers told of the archives that they opened, and closed again."""

    def read(state: str = "closed") -> list[str]:
        return [path.read_text() for path in (tmp_path / "loads").glob(f"* {state}")]

    return read


@pytest.mark.parametrize("place", ["local", "s3"])
def test_the_results_are_those_of_the_local_executor(
    cluster: Any, night: Any, place: str, request: Any, loads: Any, tmp_path: Path
) -> None:
    folder = request.getfixturevalue("s3") if place == "s3" else str(tmp_path)
    tonight = night({7: b"bad", 12: b"slow", 20: b"poison", 31: b"poison to decode"}, folder)
    # What stands in earlier results travels to the workers as well.
    before = put_table(
        objects.join(folder, "b.parquet"), {"image_uri": [f"images/{row}.png" for row in range(5)]}
    )
    old = objects.join(folder, "old")
    run(before, old, ClusterArchive(tmp_path), explain="gradcam", date="2026-11-21")
    options = {"explain": "gradcam", "since": old}
    expected = alone(tonight, **options)

    summary = on_ray(tonight, cluster[0], **options)
    assert_the_same(tonight, expected)
    assert (summary.scored, summary.carried, summary.rows) == (ROWS - 5, 5, ROWS)
    assert summary.by_code == {
        **{"image_truncated": 1, "inference_failed": 1, "preprocess_failed": 1},
    }
    assert summary.seconds["write"] > 0
    assert summary.seconds["fetch"] > 0
    nodes = {text.split()[0] for text in loads()}
    assert len(nodes) == 2

    again = on_ray(tonight, cluster[0], **options)
    assert (again.scored, again.by_status) == (3, summary.by_status)  # what had failed


def test_workers_have_a_gpu_each_where_there_are_any(cluster: Any, night: Any, loads: Any) -> None:
    # There is work left when the second has loaded.
    tonight = night(dict.fromkeys(range(ROWS), b"slow"))
    on_ray(tonight, cluster[0], size={"workers": None, "cpus": None, "gpus": None})
    found = [text.split(maxsplit=2) for text in loads()]
    assert len({node for node, *_ in found}) == 1  # the one that has them
    assert {gpu for _, gpu, _ in found} == {"0", "1"}
    assert {settings for *_, settings in found} == {"{'threads': 1}"}


def test_a_worker_that_dies_and_one_that_loses_its_device_cost_no_row(
    cluster: Any, night: Any, caplog: Any, loads: Any
) -> None:
    tonight = night({10: b"die once", 25: b"lose the device once"})
    summary = on_ray(tonight, cluster[0])
    assert summary.by_status == {"ok": ROWS, "failed": 0}
    assert "a worker is lost (ActorDiedError); other workers" in caplog.text
    assert "a worker is lost (the device no longer responds" in caplog.text
    assert "4711" not in caplog.text
    assert len(loads("open")) == 1  # all but the one that died have closed their archive
    assert_the_same(tonight, alone(tonight))


def test_a_node_that_dies_costs_no_row(cluster: Any, night: Any, caplog: Any) -> None:
    ray_cluster, nodes = cluster
    tonight = night(dict.fromkeys(range(ROWS), b"slow"))

    def kill() -> None:
        ray_cluster.kill(nodes.pop())

    summary = on_ray(tonight, ray_cluster, watch=(5, kill))
    assert summary.by_status == {"ok": ROWS, "failed": 0}
    assert caplog.text.count("a worker is lost") == 1
    assert_the_same(tonight, alone(tonight))

    # The next night goes on with what is there, and takes a node that comes back.
    nodes.append(ray_cluster.add(cpus=2))


def test_a_shard_that_kills_its_workers_is_given_up_and_no_other(
    cluster: Any, night: Any, caplog: Any, capsys: Any
) -> None:
    tonight = night({16: b"die"})
    with pytest.raises(UserError, match="4 workers died with each of these shards") as caught:
        on_ray(tonight, cluster[0])
    assert caught.value.details == ["shard 5, of 3 rows"]
    assert caplog.text.count("a worker is lost (ActorDiedError)") == 4
    assert capsys.readouterr().out == ""  # where --json has its line
    ids = [row["study_id"] for row in rows_of(tonight.out)]
    assert ids == [f"s{row}" for row in range(ROWS) if row not in (15, 16, 17)]
    assert not objects.exists(objects.join(tonight.out, f"_runs/{PLACE}/run.json"))

    put_images(tonight.folder, *(b"p=0.%02d" % row for row in range(17)))
    summary = on_ray(tonight, cluster[0])
    assert (summary.scored, summary.rows) == (3, ROWS)
    assert_the_same(tonight, alone(tonight))


def test_a_node_with_another_archive_gets_no_work(cluster: Any, night: Any, caplog: Any) -> None:
    tonight = night(dict.fromkeys(range(ROWS), b"slow"))
    summary = on_ray(tonight, cluster[0], opener=unlike_opened)
    assert summary.by_status == {"ok": ROWS, "failed": 0}
    assert len({row["model_sha256"] for row in rows_of(tonight.out)}) == 1
    assert "a worker cannot start (the archive of a node differs" in caplog.text


def test_an_archive_that_no_node_has(cluster: Any, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none" / "folder")
    with (
        pytest.raises(Exception, match="No such file or directory"),
        connected(cluster[0].address, nowhere, {}, opener=fake_opened, **TWO_NODES),
    ):
        pass


def test_a_cluster_that_does_not_know_the_token_is_not_joined(cluster: Any, tmp_path: Path) -> None:
    words = ("score", "m", "o", "--archive=a", "--executor=ray", f"--address={cluster[0].address}")
    done = subprocess.run(
        [sys.executable, "-m", "sonode", *words],
        env=os.environ | {"RAY_AUTH_TOKEN": "f" * 64},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: Ray cluster {cluster[0].address}: cannot connect: ")
    assert "Traceback" not in done.stderr


def test_too_many_failures_stop_the_run(cluster: Any, night: Any, loads: Any) -> None:
    with pytest.raises(batch.run.Stopped, match="image_truncated 1"):
        on_ray(night({1: b"bad"}), cluster[0], max_failures="0")
    assert loads()


def test_a_plan_is_measured_on_a_worker(cluster: Any, night: Any) -> None:
    tonight = night({})
    with connected(
        cluster[0].address, str(tonight.fakes), {}, opener=fake_opened, **TWO_NODES
    ) as executor:
        plan = batch.plan.plan(
            tonight.manifest, tonight.out, executor.archive, explain=None, executor=executor
        )
    assert plan.rows_to_score == ROWS
    assert plan.estimated_seconds is not None
    assert plan.estimated_seconds > 0
    assert not Path(tonight.out).exists()


def test_results_on_a_disk_of_the_nodes_own_are_refused(tmp_path: Path) -> None:
    """Without Ray: a worker that does not see what the run has written."""

    worker = Worker(lambda *_: nullcontext(ClusterArchive(tmp_path)), "", {})
    job = Job(
        archive=ClusterArchive(tmp_path),
        out=str(tmp_path / "out"),
        date="2026-11-22",
        folder="",
        explain=None,
        batch_size=1,
    )
    worker.load()
    with pytest.raises(
        UserError, match=r"out is another folder on node .*; give an s3:// URI or a"
    ):
        worker.score(portable(job), Limits(), 0, b"")
    assert not (tmp_path / "out").exists()
