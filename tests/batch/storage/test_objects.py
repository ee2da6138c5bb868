from __future__ import annotations

import errno
import gzip
import hashlib
import os
import socket
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import botocore.exceptions as boto
import pytest
import urllib3

from batch.storage import checks as storage_checks
from batch.storage import objects, s3_client
from batch.storage.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectEncoded,
    ObjectExists,
    ObjectMissing,
    ObjectTooLarge,
    StorageError,
)
from batch.storage.s3_errors import translated
from sonode.console import UserError
from sonode.demo.local_s3 import LocalS3
from tests.batch.conftest import CERTIFICATES
from tests.batch.faulty_proxy import FaultyProxy, cycle, started
from tests.batch.stub_store import Answer, StubStore, error

SECRET_NAME = "smith-1970"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.live)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder in either kind of storage: both have to behave alike."""
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "new")


def test_what_is_written_is_read_and_replaced(folder: str) -> None:
    uri = objects.join(folder, "a/b.bin")
    objects.write(uri, b"one")
    first = objects.read(uri)
    objects.write(uri, b"two")
    second = objects.read(uri)
    assert (first.data, second.data) == (b"one", b"two")
    assert first.etag != second.etag
    assert '"' not in first.etag


def test_if_match_refuses_a_changed_object(folder: str) -> None:
    uri = objects.join(folder, "x")
    objects.write(uri, b"one")
    etag = objects.read(uri).etag
    assert objects.read(uri, if_match=etag).data == b"one"
    assert objects.read(uri, if_match=f'"{etag}"').data == b"one"  # as other tools write it
    objects.write(uri, b"two")
    with pytest.raises(ObjectChanged) as caught:
        objects.read(uri, if_match=etag)
    assert caught.value.code == "object_changed"


def one_of_many_creates(uri: str) -> None:
    def attempt(number: int) -> bool:
        try:
            objects.create(uri, b"%d" % number)
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(attempt, range(8)))
    assert made.count(True) == 1
    assert objects.read(uri).data == b"%d" % made.index(True)


def test_create_makes_one_of_many(folder: str) -> None:
    uri = objects.join(folder, "a/x")
    one_of_many_creates(uri)
    assert objects.list_files(objects.join(folder, "a")) == [uri]


def test_replace_takes_only_the_one_that_was_read(folder: str) -> None:
    uri = objects.join(folder, "x")
    with pytest.raises(ObjectChanged):
        objects.replace(uri, b"new", "etag")
    objects.create(uri, b"one")
    etag = objects.etag_of(uri)
    assert etag == objects.read(uri).etag
    objects.replace(uri, b"two", etag)
    with pytest.raises(ObjectChanged):
        objects.replace(uri, b"three", etag)
    assert objects.read(uri).data == b"two"
    assert objects.list_files(folder) == [uri]


def test_more_bytes_than_are_taken_are_not_read(folder: str) -> None:
    uri = objects.join(folder, "x")
    objects.write(uri, b"12345")
    assert objects.read(uri, limit=5).data == b"12345"
    with pytest.raises(ObjectTooLarge, match="has 5 bytes; at most 4 are read"):
        objects.read(uri, limit=4)


def test_deep_listing_passes_over_what_readers_pass_over(folder: str) -> None:
    for name in ("a", "date=1/b", "date=1/model=2/c", "_runs/d", "date=1/.hidden/e"):
        objects.write(objects.join(folder, name), b"")
    assert objects.list_files(folder, deep=True) == [
        objects.join(folder, name) for name in ("a", "date=1/b", "date=1/model=2/c")
    ]


def test_missing_object_is_named_by_code_and_not_by_key(folder: str) -> None:
    for uri in (objects.join(folder, SECRET_NAME), objects.join(folder, f"{SECRET_NAME}/x")):
        with pytest.raises(ObjectMissing) as caught:
            objects.read(uri)
        assert caught.value.code == "object_missing"
        assert SECRET_NAME not in str(caught.value)


def test_a_folder_is_not_an_object(folder: str) -> None:
    objects.write(objects.join(folder, "sub/x"), b"")
    with pytest.raises(ObjectMissing):
        objects.read(objects.join(folder, "sub"))
    assert not objects.exists(objects.join(folder, "sub"))
    assert objects.exists(objects.join(folder, "sub/x"))


def test_listing_holds_the_files_directly_in_the_folder(folder: str) -> None:
    assert objects.list_files(folder) == []
    for name in ("b", "a", "sub/c"):
        objects.write(objects.join(folder, name), b"")
    objects.write(f"{folder}-other", b"")  # shares the prefix, not the folder
    expected = [objects.join(folder, "a"), objects.join(folder, "b")]
    assert objects.list_files(folder) == expected
    assert objects.list_files(f"{folder}/") == expected


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_keys_with_empty_folders_are_listed(stub: StubStore, page: int) -> None:
    stub.page = page
    for name in ("a//b", "a///c/d", "/e", "a//_hidden/f", "_g//h", "i/"):
        stub.objects[f"studies/n/{name}"] = b""
    expected = ["s3://studies/n//e", "s3://studies/n/a///c/d", "s3://studies/n/a//b"]
    assert objects.list_files("s3://studies/n", deep=True) == expected
    assert objects.list_files("s3://studies/n") == []


def test_a_listing_jumps_over_hidden_folders(stub: StubStore) -> None:
    stub.page = 10
    for number in range(1000):
        stub.objects[f"studies/n/_heatmaps/{number}"] = b""
    stub.objects |= {"studies/n/date=1/model=a/part": b"", "studies/n/zz": b""}
    expected = ["s3://studies/n/date=1/model=a/part", "s3://studies/n/zz"]
    assert objects.list_files("s3://studies/n", deep=True) == expected
    assert len(stub.requests) == 2
    stub.objects["studies/n/`"] = b""  # behind _ in the order of keys
    assert objects.list_files("s3://studies/n", deep=True)[0] == "s3://studies/n/`"


@pytest.mark.live
def test_a_real_store_jumps_as_well(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_a/1", "_a/2", "_a/sub/3", "b/_c/4", "b/_c/5", "b/d/6", "b/e", "f"):
        objects.write(f"{s3}/{name}", b"")
    client = s3_client.client()
    pages: list[dict[str, str]] = []
    listing = client.list_objects_v2

    def small(**where: Any) -> Any:
        pages.append(where)
        return listing(**where, MaxKeys=2)

    monkeypatch.setattr(client, "list_objects_v2", small)
    expected = [f"{s3}/{name}" for name in ("b/d/6", "b/e", "f")]
    assert objects.list_files(s3, deep=True) == expected
    assert [where["StartAfter"] for where in pages if "StartAfter" in where] == [
        f"{s3.removeprefix('s3://studies/')}/_a/\U0010ffff"
    ]


def test_a_store_that_does_not_heed_start_after_is_told_of(stub: StubStore) -> None:
    stub.page = 1
    stub.objects = {"studies/_a/1": b"", "studies/_a/2": b""}

    def fault(_: str, path: str, __: dict[str, str]) -> Answer | None:
        if "start-after" not in path:
            return None
        body = b"<L><Contents><Key>_a/1</Key></Contents><IsTruncated>false</IsTruncated></L>"
        return 200, {}, body

    stub.fault = fault
    with pytest.raises(StorageError, match="the store ignores StartAfter"):
        objects.list_files("s3://studies", deep=True)


def test_a_listing_that_does_not_go_on_is_told_of(stub: StubStore) -> None:
    stub.page = 1
    stub.objects = {"studies/m/a": b"", "studies/m/b": b""}
    stuck = (
        b"<L><Contents><Key>m/a</Key></Contents><IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>t</NextContinuationToken></L>"
    )
    cut = stuck.replace(b"<NextContinuationToken>t</NextContinuationToken>", b"")
    for body, why in (
        (stuck, "the store ignores ContinuationToken"),
        (cut, "no NextContinuationToke"),
    ):
        stub.requests.clear()
        stub.fault = lambda *_, body=body: (200, {}, body)  # type: ignore[misc]
        with pytest.raises(StorageError, match=why):
            objects.list_files("s3://studies/m")
        assert len(stub.requests) <= 2


@pytest.mark.parametrize("body", [b"<html><body>Sign in</body></html>", b""])
def test_what_is_no_listing_is_no_empty_folder(stub: StubStore, body: bytes) -> None:
    stub.fault = lambda *_: (200, {"Content-Type": "text/html"}, body)
    with pytest.raises(
        StorageError, match="the answer is not that of an S3 store; check AWS_ENDPOINT_URL"
    ):
        objects.list_files("s3://studies/m")
    with pytest.raises(StorageError, match="the answer is not that of an S3 store"):
        objects.exists("s3://studies/m/a")


def test_an_etag_that_a_proxy_made_weak_or_dropped(stub: StubStore) -> None:
    stub.objects["studies/x"] = b"1"
    etag = objects.etag_of("s3://studies/x")
    for given in (etag, f'"{etag}"', f'W/"{etag}"'):
        assert objects.read("s3://studies/x", if_match=given) == (b"1", etag)
    stub.fault = lambda *_: (200, {"ETag": f'W/"{etag}"'}, b"1")
    assert objects.read("s3://studies/x") == (b"1", etag)
    assert objects.etag_of("s3://studies/x") == etag
    stub.fault = lambda *_: (200, {}, b"1")
    for ask in (objects.read, objects.etag_of):
        with pytest.raises(StorageError, match="the answer has no ETag; a proxy"):
            ask("s3://studies/x")


def test_a_store_that_ignores_if_match_of_a_get(stub: StubStore) -> None:
    """As Versity's gateway did before 2025: the object of another day would be scored."""
    stub.fault = lambda *_: (200, {"ETag": '"new"'}, b"2")
    assert objects.read("s3://studies/x", if_match='"new"') == (b"2", "new")
    with pytest.raises(ObjectChanged):
        objects.read("s3://studies/x", if_match="old")


def test_a_body_that_comes_in_chunks_without_its_length(stub: StubStore) -> None:
    """From gateways that encrypt or inflate on the way."""
    stub.fault = lambda *_: (200, {"ETag": '"e"', "Transfer-Encoding": "chunked"}, b"12345")
    assert objects.read("s3://studies/x", limit=5) == (b"12345", "e")
    assert objects.read("s3://studies/x") == (b"12345", "e")
    with pytest.raises(ObjectTooLarge, match="at most 4 are read"):
        objects.read("s3://studies/x", limit=4)
    spoilt = {"ETag": '"e"', "Transfer-Encoding": "chunked", "x-amz-checksum-crc32": "NSRBwg=="}
    stub.fault = lambda *_: (200, spoilt, b"abd")  # the checksum is of "abc"
    with pytest.raises(StorageError, match="arrived with a wrong checksum, twice"):
        objects.read("s3://studies/x", limit=5)


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert objects.list_files(str(tmp_path), deep=True) == [str(tmp_path / "a" / "x")]


def test_the_first_bytes(folder: str) -> None:
    objects.write(objects.join(folder, "x"), b"12345")
    objects.write(objects.join(folder, "empty"), b"")
    assert objects.first_bytes(objects.join(folder, "x"), 4) == b"1234"
    assert objects.first_bytes(objects.join(folder, "empty"), 4) == b""
    with pytest.raises(ObjectMissing):
        objects.first_bytes(objects.join(folder, "none"), 4)


def test_local_etag_is_the_digest_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hashlib.sha256(b"abc").hexdigest() == digest
    assert objects.read(str(tmp_path / "x")).etag == f"sha256:{digest}"


def test_a_failed_local_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "x")
    objects.write(uri, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        objects.write(uri, b"new")
    assert caught.value.code == "storage_unavailable"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert objects.read(uri).data == b"old"


def test_local_permission_and_strange_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ObjectMissing):
        objects.read("a\0b")
    with pytest.raises(StorageError, match="File name too long"):
        objects.exists(str(tmp_path / ("x" * 300)))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a folder of its path is a file"):
        objects.read(str(tmp_path / "file" / "x"))

    def refused(_: Path, *__: object) -> bytes:  # root, as which tests may run, is never refused
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(AccessDenied):
        objects.read(str(tmp_path / "x"))


def test_join_and_parent() -> None:
    assert objects.join("s3://b/a/", "c/d") == "s3://b/a/c/d"
    assert objects.parent("s3://b/a/c") == "s3://b/a"
    assert objects.split_s3("s3://b/a/c") == ("b", "a/c")
    assert objects.join("a", "b") == str(Path("a") / "b")


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    with pytest.raises(UserError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        storage_checks.check_bucket("s3://studies/")
    monkeypatch.setenv("AWS_PROFILE", "nightly")
    with pytest.raises(UserError, match="AWS_PROFILE 'nightly' is not configured"):
        storage_checks.check_bucket("s3://studies/")
    with pytest.raises(UserError, match="AWS_PROFILE 'nightly' is not configured"):
        objects.write("s3://studies/x", b"")


def test_credentials_that_cannot_be_renewed_are_no_fault_of_a_row() -> None:
    error = boto.CredentialRetrievalError(provider="assume-role", error_msg="of smith-1970")
    found = translated(error, "studies")
    assert isinstance(found, UserError)
    assert "no S3 credentials for bucket 'studies'" in str(found)
    assert SECRET_NAME not in str(found)


def test_endpoint_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:  # bound but not listening: every connection is refused
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        with pytest.raises(
            UserError, match=rf"'studies' at {address} was not reached \(refused\): "
        ):
            storage_checks.check_bucket(f"s3://studies/{SECRET_NAME}")
        with pytest.raises(StorageError) as caught:
            objects.read(f"s3://studies/{SECRET_NAME}")
        assert SECRET_NAME not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:99")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL is not an address: localhost:99"):
        storage_checks.check_bucket("s3://studies/")


@pytest.mark.live
@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "hunter2")
    for use in (storage_checks.check_bucket, objects.read, objects.list_files, objects.exists):
        with pytest.raises(UserError, match=variable) as caught:
            use(s3)
        assert "hunter2" not in str(caught.value)
        assert "the-secret" not in str(caught.value)
    with pytest.raises(UserError, match=variable):
        objects.write(f"{s3}/x", b"")


@pytest.mark.live
@pytest.mark.usefixtures("s3")
def test_missing_bucket() -> None:
    with pytest.raises(UserError, match=r"'no-such-bucket' at 127\.0\.0\.1:\d+ does not exist"):
        storage_checks.check_bucket("s3://no-such-bucket/x")
    with pytest.raises(ObjectMissing, match="'no-such-bucket'"):
        objects.read("s3://no-such-bucket/x")
    with pytest.raises(ObjectMissing, match="'no-such-bucket'"):
        objects.write("s3://no-such-bucket/x", b"")
    with pytest.raises(UserError, match=r"'no\$bucket' at .*: not a bucket and key"):
        storage_checks.check_bucket("s3://no$bucket/x")


@pytest.mark.live
def test_many_threads_share_the_client(s3: str) -> None:
    def there_and_back(number: int) -> bytes:
        objects.write(f"{s3}/{number}", b"%d" % number)
        return objects.read(f"{s3}/{number}").data

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(there_and_back, range(64))) == [b"%d" % n for n in range(64)]
    assert len(objects.list_files(s3)) == 64


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_one_of_many_creates_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """EPERM is what Linux answers for exFAT, EOPNOTSUPP for SMB."""

    def no_link(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_link)
    one_of_many_creates(str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_the_etag_of_a_local_file_is_taken_a_piece_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        etag = objects.etag_of(str(path), limit=64 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert etag == objects.read(str(path)).etag
    with pytest.raises(ObjectTooLarge):
        objects.etag_of(str(path), limit=(64 << 20) - 1)


@pytest.mark.live
@pytest.mark.parametrize("times", [1, 2])
def test_a_fault_of_tls_in_mid_body_is_tried_again_and_then_the_stores(
    s3: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Neither botocore's wrapper of the body nor its exceptions know these of urllib3."""
    objects.write(f"{s3}/x", b"one")
    faults = [urllib3.exceptions.SSLError(f"decryption failed: {SECRET_NAME}")] * times
    read = urllib3.HTTPResponse.read

    def failing(*given: object, **named: object) -> object:
        if faults and given[0].status == 200:  # type: ignore[attr-defined]
            raise faults.pop()
        return read(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(urllib3.HTTPResponse, "read", failing)
    if times == 1:
        assert objects.read(f"{s3}/x").data == b"one"
        return
    with pytest.raises(StorageError, match="arrived incomplete, twice") as caught:
        objects.read(f"{s3}/x")
    assert SECRET_NAME not in str(caught.value)


def test_a_content_encoding_is_undone_within_the_limit_or_named(
    stub: StubStore, tmp_path: Path
) -> None:
    image = b"pixels" * 100
    packed = gzip.compress(image)

    def store(data: bytes, coding: str) -> None:
        stub.fault = lambda *_: (200, {"ETag": '"e"', "Content-Encoding": coding}, data)

    for coding in ("gzip", "x-gzip", "aws-chunked,gzip"):
        store(packed, coding)
        assert objects.read("s3://studies/x", limit=600) == (image, "e")
        assert objects.read("s3://studies/x").data == image
    store(image, "aws-chunked")
    assert objects.read("s3://studies/x").data == image
    store(packed, "gzip")
    with pytest.raises(ObjectTooLarge, match="inflates to more than 599"):
        objects.read("s3://studies/x", limit=599)
    with pytest.raises(ObjectEncoded, match="'gzip' is not decoded here"):
        objects.fetch("s3://studies/x", tmp_path / "x")
    for data, coding, why in (
        (packed[:-1], "gzip", "Content-Encoding is gzip"),
        (image, "gzip", "Content-Encoding is gzip"),
        (image, "br", "'br' is not decoded here"),
    ):
        store(data, coding)
        with pytest.raises(ObjectEncoded, match=why) as caught:
            objects.read("s3://studies/x", limit=600)
        assert caught.value.code == "object_encoded"


@pytest.mark.live
def test_a_transfer_that_does_not_match_its_checksum_is_tried_again(
    s3: str, server: LocalS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.write(f"{s3}/x", b"150 pixels")
    reads = (lambda: objects.read(f"{s3}/x").data, lambda: fetched(f"{s3}/x", tmp_path / "copy"))
    for faults in ("flip", None), ("flip", "flip"):
        proxy = FaultyProxy(server.endpoint, cycle(*faults))
        with started(proxy) as address, monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", address)
            patch.setenv("AWS_ENDPOINT_URL_S3", address)
            for read in reads:
                if None in faults:
                    assert read() == b"150 pixels"
                else:
                    with pytest.raises(StorageError, match="arrived with a wrong checksum"):
                        read()
            s3_client.client().close()


def fetched(uri: str, path: Path) -> bytes:
    objects.fetch(uri, path)
    return path.read_bytes()


def test_what_is_spoilt_on_its_way_to_the_store_is_sent_again(stub: StubStore) -> None:
    answers = [error(400, "BadDigest"), error(400, "XAmzContentChecksumMismatch")]

    def fault(method: str, _: str, headers: dict[str, str]) -> Answer | None:
        assert headers["x-amz-checksum-crc32"] == "NSRBwg=="  # of "abc": 352441c2
        return answers.pop() if answers else None

    stub.fault = fault
    with pytest.raises(StorageError, match="arrived with a wrong checksum, twice"):
        objects.write("s3://studies/x", b"abc")
    assert not stub.objects
    answers.append(error(400, "BadDigest"))
    objects.create("s3://studies/x", b"abc")
    assert stub.objects == {"studies/x": b"abc"}


def test_checksums_go_before_the_body_also_over_https(
    tls: StubStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 by itself frames the body there, and some stores keep the frame in the object."""
    seen: list[dict[str, str]] = []

    def fault(_: str, __: str, headers: dict[str, str]) -> None:
        seen.append(headers)

    tls.fault = fault
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CERTIFICATES / "localhost.pem"))
    objects.write("s3://studies/x", b"abc")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    objects.write("s3://studies/y", b"abc")
    sent, without = seen
    assert (sent["content-length"], sent["x-amz-checksum-crc32"]) == ("3", "NSRBwg==")
    assert not {"x-amz-trailer", "content-encoding", "transfer-encoding"} & {*sent, *without}
    assert "x-amz-checksum-crc32" not in without
    assert tls.objects == {"studies/x": b"abc", "studies/y": b"abc"}
