from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import batch.plan
import batch.run
from batch import layout
from batch.results import schema as results
from batch.storage import checks as storage_checks
from batch.storage import objects
from batch.storage.errors import ConditionUnknown, ObjectChanged, ObjectExists
from sonode.console import UserError
from tests.batch.stub_store import Answer, StubStore, error
from tests.batch.test_run import put_images, run

OUT = "s3://studies/out"


@pytest.mark.live
def test_a_store_with_conditions_is_taken_again_and_again(s3: str, tmp_path: Path) -> None:
    for out in (s3, s3, str(tmp_path)):
        storage_checks.check_readable(out)
        storage_checks.check_store(out)
    assert objects.list_files(s3, deep=True) == []  # readers pass over the probe
    assert objects.exists(f"{s3}/{layout.STORE_CHECK}")
    assert list(tmp_path.iterdir()) == []


def unconditional(method: str, _: str, headers: dict[str, str]) -> Answer | None:
    """As stores that do not know conditions answer."""
    if method == "PUT" and {"if-match", "if-none-match"} & set(headers):
        return error(501, "NotImplemented")
    return None


@pytest.mark.parametrize("known", [False, True])
def test_a_store_without_conditions_is_for_a_single_writer(
    stub: StubStore, archive: Any, put_table: Any, known: bool
) -> None:
    stub.conditions = False
    if known:
        stub.fault = unconditional
    uris = put_images("s3://studies", b"p=0.5", b"p=0.7")
    manifest = put_table("s3://studies/m.parquet", {"image_uri": uris})
    stub.requests.clear()
    why = r"does not know If-None-Match \(501\)" if known else "ignores If-None-Match"
    with pytest.raises(UserError, match=f"the store {why}, so that two runs .*--single-writer"):
        run(manifest, OUT, archive)
    there = [name for name in stub.objects if name.startswith("studies/out/")]
    assert there == [f"studies/out/{layout.STORE_CHECK}"]
    assert run(manifest, OUT, archive, single_writer=True).by_status == {"ok": 2, "failed": 0}
    again = run(manifest, OUT, archive, single_writer=True)
    assert (again.scored, again.rows) == (0, 2)
    # What docs/batch.md's policy allows: GetObject (also by HEAD), ListBucket, PutObject below OUT.
    assert {request.split()[0] for request in stub.requests} <= {"GET", "HEAD", "PUT"}
    assert all(
        request.startswith("PUT /studies/out/") for request in stub.requests if "PUT" in request
    )
    assert results.read(OUT)["malignancy_probability"].to_pylist() == [0.5, 0.7]


def test_a_plan_writes_nothing_and_asks_nothing_of_the_store(
    stub: StubStore, archive: Any, put_table: Any
) -> None:
    manifest = put_table(
        "s3://studies/m.parquet", {"image_uri": put_images("s3://studies", b"p=1")}
    )
    stub.requests.clear()
    assert batch.plan.plan(manifest, OUT, archive, explain=None).rows_to_score == 1
    assert not [request for request in stub.requests if request.startswith("PUT")]


def test_where_conditions_are_not_known_they_are_looked_after(stub: StubStore) -> None:
    stub.fault = unconditional
    objects.create(f"{OUT}/x", b"one")
    with pytest.raises(ObjectExists):
        objects.create(f"{OUT}/x", b"two")
    with pytest.raises(ObjectChanged):
        objects.replace(f"{OUT}/x", b"two", "0" * 32)
    objects.replace(f"{OUT}/x", b"two", objects.etag_of(f"{OUT}/x"))
    assert objects.read(f"{OUT}/x").data == b"two"
    with pytest.raises(ConditionUnknown):
        objects.create(f"{OUT}/y", b"", emulated=False)


def test_a_store_that_ignores_if_match_alone(stub: StubStore) -> None:
    def fault(method: str, _: str, headers: dict[str, str]) -> Answer | None:
        return (200, {"ETag": '"e"'}, b"") if method == "PUT" and "if-match" in headers else None

    stub.fault = fault
    with pytest.raises(UserError, match="the store ignores If-Match, so that two runs"):
        storage_checks.check_store(OUT)
    storage_checks.check_store(OUT, single_writer=True)


def test_a_store_that_gives_back_other_bytes(stub: StubStore) -> None:
    def framed(method: str, path: str, _: dict[str, str]) -> Answer | None:
        data = b"4d\r\nWritten by" if method == "GET" and "list-type" not in path else None
        return None if data is None else (200, {"ETag": '"e"'}, data)

    stub.fault = framed
    with pytest.raises(UserError, match=r"other bytes .* AWS_REQUEST_CHECKSUM_CALCULATION="):
        storage_checks.check_store(OUT, single_writer=True)


def test_a_folder_of_results_that_may_not_be_listed(
    stub: StubStore, archive: Any, put_table: Any
) -> None:
    """A missing object is forbidden then, so that no run could tell what there is."""
    uris = put_images("s3://studies", b"p=0.5")
    manifest = put_table("s3://studies/m.parquet", {"image_uri": uris})

    def fault(_: str, path: str, __: dict[str, str]) -> Answer | None:
        return error(403, "AccessDenied") if "list-type" in path else None

    stub.fault = fault
    with pytest.raises(UserError, match="do not allow s3:ListBucket in bucket 'studies'"):
        run(manifest, OUT, archive)
    assert not any("out/" in name for name in stub.objects)
