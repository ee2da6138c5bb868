"""The stages of a run: order, bounds, time limits, and failures that stay with their row."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batch.plan
import batch.prepare
import batch.run
from batch.manifest.read import Request
from batch.results import schema as results
from batch.scoring.budget import Budget
from batch.scoring.decoders import Decoders, TimeLimit
from batch.scoring.fetching import Limits
from batch.scoring.job import Job
from batch.scoring.pipeline import Pipeline
from batch.storage import objects
from model_def.limits import MAX_DICOM_BYTES
from sonode.console import UserError
from tests.batch.conftest import FakeArchive
from tests.batch.test_run import put_images, rows_of, run


def job_of(archive: Any, **options: Any) -> Job:
    return Job(archive=archive, out="/none", date="2026-11-22", folder="/", explain=None, **options)


def scored(archive: Any, uris: list[str], limits: Limits, **options: Any) -> list[results.Row]:
    asked = {number: Request(uri, None, {}) for number, uri in enumerate(uris)}
    with Pipeline(job_of(archive, **{"batch_size": 4, **options}), limits) as pipeline:
        rows = dict(pipeline.rows(asked))
    assert sorted(rows) == list(range(len(uris)))
    return [rows[number] for number in range(len(uris))]


class Uneven(FakeArchive):
    """Takes a seeded random while for each image, and sees how many bytes it is given at once."""

    def preprocess(self, row: Mapping[str, object]) -> Any:
        time.sleep(random.Random(str(row["image"])).uniform(0, 0.01))
        return super().preprocess(row)


class UnevenInAll(FakeArchive):
    """Takes a seeded random while for each image and each batch."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)

    def preprocess(self, row: Mapping[str, object]) -> Any:
        time.sleep(self.chance.uniform(0, 0.01))
        return super().preprocess(row)

    def score_prepared(self, prepared: Any) -> Any:
        time.sleep(self.chance.uniform(0, 0.01))
        return super().score_prepared(prepared)


def test_micro_batches_are_cut_in_the_order_of_rows(tmp_path: Path) -> None:
    archive = Uneven()
    images = [b"p=0.%02d" % number for number in range(40)]
    images[5] = images[17] = b"no image"
    rows = scored(archive, put_images(str(tmp_path), *images), Limits())
    assert [row["malignancy_probability"] for row in rows if row["status"] == "ok"] == [
        float(image[2:]) for image in images if image != b"no image"
    ]
    taken = [image for image in images if image != b"no image"]
    assert [[row["image"] for row in call] for call in archive.calls] == [
        taken[start : start + 4] for start in range(0, len(taken), 4)
    ]
    assert {rows[5]["code"], rows[17]["code"]} == {"unsupported_image"}
    for row in rows:
        assert row["fetch_ms"] > 0
        assert row["preprocess_ms"] > 0
        assert (row.get("inference_ms") is None) == (row["status"] == "failed")


def test_micro_batches_are_the_same_where_memory_is_short(tmp_path: Path) -> None:
    """Of 64 bytes a batch takes the row with which it has more than 8, though it may be full at 4.

    The fifth, of 62, finds no room beside the fourth, which waits to be in a batch with it. The
    rows before it have been scored by then, or have not.
    """
    sizes = [5, 5, 9, 3, 62, 3, 3, 3, 3, 5]
    uris = put_images(str(tmp_path), *(b"p=0.000".ljust(n, b"0")[:n] for n in sizes))
    for seed in range(5):
        archive = UnevenInAll(seed)
        rows = scored(archive, uris, Limits(bytes_in_memory=64))
        assert {row["status"] for row in rows} == {"ok"}
        assert [[len(row["image"]) for row in call] for call in archive.calls] == [
            *([5, 5], [9], [3, 62], [3, 3, 3], [3, 5]),
        ]


def test_whatever_a_fetch_raises_is_its_rows_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2", b"p=0.3")
    read = objects.read

    def reading(uri: str, **options: Any) -> Any:
        if uri == uris[1]:
            options["admit"](5)
            raise KeyError("of patient 4711")
        return read(uri, **options)

    monkeypatch.setattr(objects, "read", reading)
    rows = scored(FakeArchive(), uris, Limits(bytes_in_memory=5))
    assert [row.get("code") for row in rows] == [None, "fetch_failed", None]
    assert rows[1]["stage"] == "fetch"
    assert rows[1]["message"] == "reading the object raised KeyError"


def test_each_stage_tells_what_it_cost(tmp_path: Path) -> None:
    class Slow(FakeArchive):
        def preprocess(self, row: Mapping[str, object]) -> Any:
            time.sleep(0.01)
            return super().preprocess(row)

        def score_prepared(self, prepared: Any) -> Any:
            time.sleep(0.02)
            return super().score_prepared(prepared)

    uris = put_images(str(tmp_path), *[b"p=0.5"] * 7, b"no image")
    job = dataclasses.replace(job_of(Slow(), batch_size=4), explain="gradcam", out=str(tmp_path))
    with Pipeline(job, Limits()) as pipeline:
        rows = dict(pipeline.rows({n: Request(uri, None, {}) for n, uri in enumerate(uris)}))
    for stage in results.STAGES:
        of_rows = sum(row.get(f"{stage}_ms") or 0 for row in rows.values())
        assert job.seconds[stage] == pytest.approx(of_rows / 1000)
    assert job.seconds["preprocess"] >= 8 * 0.01
    assert job.seconds["inference"] >= 2 * 0.02
    assert job.seconds["heatmaps"] > 0


def test_heat_maps_of_several_batches_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2, timeout=30)
    write = Job.write

    def writing(job: Job, name: str, data: bytes) -> str:
        together.wait()
        return write(job, name, data)

    monkeypatch.setattr(Job, "write", writing)
    rows = explained(FakeArchive(), tmp_path, [b"p=0.1", b"p=0.2"], Limits(), batch_size=1)
    assert [row["malignancy_probability"] for row in rows.values()] == [0.1, 0.2]


def explained(
    archive: Any, folder: Path, images: list[bytes], limits: Limits, batch_size: int = 4
) -> dict[int, results.Row]:
    """The rows as far as they come; what ends the run is not raised."""
    job = job_of(archive, batch_size=batch_size)
    job = dataclasses.replace(job, explain="gradcam", out=str(folder))
    asked = {n: Request(uri, None, {}) for n, uri in enumerate(put_images(str(folder), *images))}
    rows: dict[int, results.Row] = {}
    with Pipeline(job, limits) as pipeline, suppress(UserError):
        rows.update(pipeline.rows(asked))
    return rows


def test_images_that_are_scored_are_gone_while_their_heat_maps_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pixels:
        pass

    held: weakref.WeakSet[Pixels] = weakref.WeakSet()
    scored_rows: list[int] = []
    left: list[int] = []

    class Archive(FakeArchive):
        def preprocess(self, row: Mapping[str, object]) -> Any:
            prepared = dict(row)
            pixels = prepared["pixels"] = Pixels()
            held.add(pixels)
            return prepared

        def score_prepared(self, prepared: Any) -> Any:
            scored_rows.append(len(prepared))
            return [self._score(row) for row in prepared]

    write = Job.write

    def writing(job: Job, name: str, data: bytes) -> str:
        until = time.monotonic() + 10
        while (sum(scored_rows) < 12 or len(held) > 1) and time.monotonic() < until:
            time.sleep(0.01)
        left.append(len(held))
        return write(job, name, data)

    monkeypatch.setattr(Job, "write", writing)
    images = [b"p=0.%02d" % number for number in range(12)]
    assert len(explained(Archive(), tmp_path, images, Limits())) == 12
    assert max(left) <= 1  # the row that came last


def test_heat_maps_that_wait_to_be_written_count_as_bytes_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 60 bytes and maps of 56 a row: of 130 bytes one waits beside an image."""
    lock = threading.Lock()
    many = threading.Event()
    unwritten = 0
    found: list[int] = []

    class Archive(FakeArchive):
        def preprocess(self, row: Mapping[str, object]) -> Any:
            with lock:
                found.append(unwritten)
            if len(found) == 5:
                many.set()
            return super().preprocess(row)

        def score_prepared(self, prepared: Any) -> Any:
            nonlocal unwritten
            outcomes = super().score_prepared(prepared)
            with lock:
                unwritten += 56
            return outcomes

    write = Job.write

    def writing(job: Job, name: str, data: bytes) -> str:
        nonlocal unwritten
        many.wait(0.2)
        uri = write(job, name, data)
        with lock:
            unwritten -= len(data)
        return uri

    monkeypatch.setattr(Job, "write", writing)
    images = [(b"p=0.%d" % number).ljust(60, b"0") for number in range(2, 10, 2)] * 2
    rows = explained(Archive(), tmp_path, images, Limits(bytes_in_memory=130), batch_size=1)
    assert [row["status"] for row in rows.values()] == ["ok"] * 8
    assert unwritten == 0
    assert max(found) + 60 <= 130


def test_a_heat_map_that_cannot_be_written_ends_the_others_and_costs_no_row_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second head's, of the first row, after those of the other rows of its batch."""
    others = threading.Semaphore(0)
    tried: list[bytes] = []
    write = Job.write

    def writing(job: Job, name: str, data: bytes) -> str:
        tried.append(data)
        if data.startswith(b"alnm 0.1 "):
            for _ in range(3):
                assert others.acquire(timeout=30)
            raise UserError("results cannot be written")
        uri = write(job, name, data)
        if data.startswith(b"alnm"):
            others.release()
        return uri

    monkeypatch.setattr(Job, "write", writing)
    images = [b"p=0.1", b"p=0.2", b"p=0.3", b"p=0.4"]
    rows = explained(FakeArchive(), tmp_path, images, Limits(fetch_threads=2))
    assert list(rows) == [1, 2, 3]
    assert all(objects.exists(row["alnm_heatmap_uri"]) for row in rows.values())
    tried.clear()
    others.release(3)
    assert not explained(FakeArchive(), tmp_path, images * 3, Limits(fetch_threads=1))
    assert len(tried) == 2  # each may take minutes until it has failed


def test_fetching_and_decoding_go_on_while_the_network_is_busy(tmp_path: Path) -> None:
    decoded: list[object] = []
    later = threading.Event()

    class Waiting(FakeArchive):
        def preprocess(self, row: Mapping[str, object]) -> Any:
            decoded.append(row["image"])
            if len(decoded) > 12:
                later.set()
            return super().preprocess(row)

        def score_prepared(self, prepared: Any) -> Any:
            assert later.wait(20)  # of a first batch of four: the others come meanwhile
            return super().score_prepared(prepared)

    rows = scored(Waiting(), put_images(str(tmp_path), *[b"p=0.5"] * 60), Limits())
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.parametrize("size", [10, 64, 1000])
def test_bytes_in_memory_are_bounded_and_nothing_waits_for_ever(tmp_path: Path, size: int) -> None:
    """Objects of 8 to 40 bytes through budgets that hold a few of them, one, or not even one."""
    lock = threading.Lock()
    held, most = 0, 0

    class Counting(Uneven):
        def preprocess(self, row: Mapping[str, object]) -> Any:
            nonlocal held, most
            with lock:
                held += len(row["image"])  # type: ignore[arg-type]
                most = max(most, held)
            return super().preprocess(row)

        def score_prepared(self, prepared: Any) -> Any:
            nonlocal held
            done = super().score_prepared(prepared)
            with lock:
                held -= sum(len(row["image"]) for row in prepared)
            return done

    chance = random.Random(1)
    images = [b"p=0.5" + b"0" * chance.randint(3, 35) for _ in range(80)]
    limits = Limits(bytes_in_memory=size)
    asked = {n: Request(uri, None, {}) for n, uri in enumerate(put_images(str(tmp_path), *images))}
    archive = Counting()
    with Pipeline(job_of(archive, batch_size=4), limits) as pipeline:
        threads = [
            threading.Thread(target=lambda part: found.update(pipeline.rows(part)), args=(part,))
            for part in (dict(list(asked.items())[:40]), dict(list(asked.items())[40:]))
        ]
        found: dict[int, results.Row] = {}
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 80
        assert pipeline.budget._used == 0
    assert {row["status"] for row in found.values()} == {"ok"}
    # Decoded ones are counted on top as they come about; encoded ones are gone by then.
    # Beside an object that is let through alone two batches may wait, one of each thread.
    assert most <= max(size, 40) + 2 * 40 + 2 * (size // 8 + 40)


def test_what_is_too_large_or_absent_fails_alone(tmp_path: Path) -> None:
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2" + b"0" * 100, b"p=0.3")
    uris.append(str(tmp_path / "none.png"))
    rows = scored(FakeArchive(), uris, Limits(object_bytes=50, bytes_in_memory=60))
    assert [(row.get("code"), row.get("stage")) for row in rows] == [
        (None, None),
        ("object_too_large", "fetch"),
        (None, None),
        ("object_missing", "fetch"),
    ]


def test_a_decoder_that_hangs_costs_its_row_alone(tmp_path: Path) -> None:
    images = [b"p=0.5", b"hang", b"hang", b"hang", b"p=0.25", *[b"p=0.75"] * 30]
    archive = FakeArchive()
    try:
        rows = scored(archive, put_images(str(tmp_path), *images), Limits(row_seconds=0.3))
    finally:
        archive.released.set()
    assert [row["status"] for row in rows] == ["ok", *["failed"] * 3, *["ok"] * 31]
    assert (rows[2]["code"], rows[2]["stage"]) == ("preprocess_timeout", "preprocess")
    assert rows[2]["message"] == "not decoded within 0.3 s"
    assert 300 <= rows[2]["preprocess_ms"] < 3000


def test_one_that_hangs_gives_its_room_back(tmp_path: Path) -> None:
    archive = FakeArchive()
    uris = put_images(str(tmp_path), b"hang", b"p=0.5", b"p=0.25")
    try:
        rows = scored(archive, uris, Limits(row_seconds=0.3, bytes_in_memory=4))
    finally:
        archive.released.set()
    assert [row["status"] for row in rows] == ["failed", "ok", "ok"]


def test_too_many_that_hang_end_the_run_which_then_goes_on_without_them(
    tmp_path: Path, put_table: Any
) -> None:
    archive = FakeArchive()
    uris = put_images(str(tmp_path), *[b"hang"] * 3, *[b"p=0.5"] * 40)
    # A row asked for twice is refused; these are other objects with the same bytes.
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = str(tmp_path / "out")
    limits = Limits(row_seconds=0.2, rows_given_up=2)
    try:
        with pytest.raises(UserError, match=r"3 images were not decoded within 0.2 s"):
            run(manifest, out, archive, shard_rows=50, limits=limits)
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "decode")
        codes = [row["code"] for row in rows_of(out)]
        assert codes[:3] == ["preprocess_timeout"] * 3
        left = codes.count("not_reached")
        assert left > 0
        patient = FakeArchive()  # a plan measures
        patient.released.set()
        planned = batch.plan.plan(
            *(manifest, out, patient), explain=None, date="2026-11-22", retry_failed=False
        )
        assert (planned.rows_failed, planned.rows_to_score) == (3, left)
        summary = run(manifest, out, archive, shard_rows=50, limits=limits, retry_failed=False)
    finally:
        archive.released.set()
    assert summary.by_code == {"preprocess_timeout": 3}
    assert [row["status"] for row in rows_of(out)] == ["failed"] * 3 + ["ok"] * 40


def test_too_many_that_hang_in_one_shard_let_the_other_write_what_it_has(
    tmp_path: Path, put_table: Any
) -> None:
    archive = FakeArchive()
    uris = put_images(str(tmp_path), *[b"p=0.5"] * 40, *[b"hang"] * 40)
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = str(tmp_path / "out")
    try:
        with pytest.raises(UserError, match="images were not decoded"):
            limits = Limits(row_seconds=0.2, rows_given_up=3)
            run(manifest, out, archive, shard_rows=40, limits=limits)
    finally:
        archive.released.set()
    codes = [row["code"] for row in rows_of(out)]
    assert len(codes) in (40, 80)  # the other one may have come to no row yet, and has no part then
    assert set(codes[:-40]) <= {None, "not_reached"}
    assert codes[-40:].count("preprocess_timeout") >= 4


def test_errors_of_the_archive_stay_with_their_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [b"p=0.1", b"poison", b"p=0.3", b"poison to decode", b"p=0.5"]
    rows = scored(FakeArchive(), put_images(str(tmp_path), *images), Limits(), batch_size=5)
    assert [row.get("code") for row in rows] == [
        *(None, "inference_failed", None, "preprocess_failed", None),
    ]
    assert [row["malignancy_probability"] for row in rows[::2]] == [0.1, 0.3, 0.5]
    for text in (caplog.text, rows[1]["message"], rows[3]["message"]):
        assert "4711" not in text
        assert str(tmp_path) not in text


def test_rows_of_a_service_that_raises_fail_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: Any) -> Any:
        raise RuntimeError("of patient 4711")

    archive = FakeArchive()
    monkeypatch.setattr(archive, "score_prepared", fail)
    rows = scored(archive, put_images(str(tmp_path), b"p=0.1", b"p=0.2"), Limits())
    assert [(row["code"], row["message"]) for row in rows] == 2 * [
        ("inference_failed", "the archive's service raised RuntimeError")
    ]


def test_a_lost_device_ends_the_run_before_rows_are_failed(tmp_path: Path, put_table: Any) -> None:
    archive = FakeArchive()
    archive.lost = True
    uris = put_images(str(tmp_path), b"p=0.1", b"poison")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match=r"the device no longer responds \(inference_failed\)"):
        run(manifest, out, archive)
    assert objects.list_files(out, deep=True) == []


def test_a_device_that_is_lost_in_an_explanation_ends_the_run_at_once(
    tmp_path: Path, put_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = FakeArchive()
    archive.lost = True
    body = {"code": "explanation_failed", "message": "it failed", "field": "explain"}
    monkeypatch.setattr(archive, "score_prepared", lambda rows: [(500, body)] * len(rows))
    uris = put_images(str(tmp_path), b"p=0.1", b"p=0.2")
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": uris})
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match=r"no longer responds \(explanation_failed\)"):
        run(manifest, out, archive)
    assert objects.list_files(out, deep=True) == []


def test_the_budget_lets_the_next_in_turn_through_first() -> None:
    budget = Budget(100)
    first, second, third = (budget.ticket() for _ in range(3))
    order: list[int] = []

    def take(ticket: int, size: int) -> None:
        budget.acquire(ticket, size)
        order.append(ticket)

    threads = [
        threading.Thread(target=take, args=given)
        for given in ((third, 1), (second, 90), (first, 50))
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    assert order == [first]  # the small one does not overtake the one that waits for room
    budget.add(-50)
    for thread in threads:
        thread.join(5)
    assert order == [first, second, third]


def test_a_task_that_comes_back_late_is_not_heard() -> None:
    pool = Decoders(1, limit_s=0.1, max_given_up=5, stop=threading.Event())
    released = threading.Event()
    late = pool.submit(lambda: released.wait(10))
    after = pool.submit(lambda: "next")
    with pytest.raises(TimeLimit):
        late.result()
    assert after.result() == "next"  # on the thread that took the place
    released.set()
    time.sleep(0.1)
    with pytest.raises(TimeLimit):
        late.result()
    pool.close()


def test_while_the_process_is_stopped_no_image_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGSTOP, a frozen container or a virtual machine that moves: an hour between two looks."""
    pool = Decoders(1, limit_s=60, max_given_up=1, stop=threading.Event())
    released = threading.Event()
    task = pool.submit(lambda: released.wait(10))
    while task.started is None:
        time.sleep(0.001)
    clock = time.perf_counter()
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    for second in range(3600, 3660):
        assert not task.given_up
        clock = task.started + second
        pool.look()
    assert task.given_up
    released.set()
    pool.close()


def test_those_that_come_back_do_not_count_as_hanging() -> None:
    pool = Decoders(1, limit_s=0.05, max_given_up=1, stop=threading.Event())
    for _ in range(4):
        released = threading.Event()
        late = pool.submit(partial(released.wait, 10))
        with pytest.raises(TimeLimit):
            late.result()
        released.set()
        time.sleep(0.1)
    pool.close()


def test_memory_and_first_score_do_not_depend_on_the_manifest(tmp_path: Path) -> None:
    """Shards are read as they are due: of a long manifest no more than a few are in memory."""
    table = pa.table({"image_uri": [f"{number}.png" for number in range(200_000)]})
    from batch.manifest import read as manifest
    from tests.batch.conftest import put_table

    uri = put_table(str(tmp_path / "m.parquet"), table)
    before = pa.total_allocated_bytes()
    with manifest.open_manifest(uri, reserved=()) as found:
        shards = batch.prepare.shards_of(found, 1024)
        for _ in range(100):
            next(shards)
            assert pa.total_allocated_bytes() - before < 8 << 20


def test_what_no_handler_takes_is_not_fetched() -> None:
    """The batch reaches the network through an archive alone, so the limit stands in both."""
    assert Limits().object_bytes == MAX_DICOM_BYTES
