"""What a person is told of a store in trouble, to which no real one can be brought: a stub's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batch.storage import checks as storage_checks
from batch.storage import objects
from batch.storage.errors import AccessDenied, ObjectArchived, StorageError
from sonode.console import UserError
from tests.batch.conftest import CERTIFICATES
from tests.batch.stub_store import Answer, StubStore, error

SECRET_NAME = "smith-1970"
URI = f"s3://studies/{SECRET_NAME}"


def uses(tmp_path: Path) -> list[Callable[[], object]]:
    """Every way to use an object."""
    return [
        lambda: objects.read(URI),
        lambda: objects.fetch(URI, tmp_path / "copy"),
        lambda: objects.first_bytes(URI, 4),
        lambda: objects.list_files(URI, deep=True),
        lambda: objects.exists(URI),
        lambda: objects.etag_of(URI),
        lambda: objects.write(URI, b"x"),
        lambda: objects.create(URI, b"x"),
        lambda: objects.replace(URI, b"x", "etag"),
    ]


def told(use: Callable[[], object]) -> str:
    with pytest.raises((StorageError, UserError)) as caught:
        use()
    assert SECRET_NAME not in str(caught.value)
    return str(caught.value)


def answering(stub: StubStore, answer: Answer) -> None:
    stub.fault = lambda *_: answer


@pytest.mark.parametrize("status", [301, 307, 308])
def test_an_endpoint_that_redirects_is_named(stub: StubStore, tmp_path: Path, status: int) -> None:
    location = {"Location": f"https://store.example/studies/{SECRET_NAME}"}
    answering(stub, (status, location, b"<html>moved</html>"))
    expected = "redirects to https://store.example: set AWS_ENDPOINT_URL to the store's address"
    assert all(expected in told(use) for use in uses(tmp_path))
    with pytest.raises(UserError, match="bucket 'studies' at "):
        storage_checks.check_bucket("s3://studies/")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            error(403, "RequestTimeTooSkewed"),
            "and this machine differ in time: set this machine's clock",
        ),
        (
            error(400, "AuthorizationHeaderMalformed"),
            "set AWS_DEFAULT_REGION to the bucket's, and see AWS_ACCESS_KEY_ID",
        ),
        (
            (400, {}, b"<Error><Code>InvalidRegion</Code><Region>eu-west-1</Region></Error>"),
            "is in another region: set AWS_DEFAULT_REGION to eu-west-1",
        ),
        (error(411, "MissingContentLength"), "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
        (error(407, ""), "the proxy of HTTPS_PROXY or HTTP_PROXY requires a user and password"),
        (error(403, "AccessDenied"), ""),
    ],
)
def test_what_is_true_of_the_bucket_ends_the_run_at_its_start(
    stub: StubStore, answer: Answer, expected: str
) -> None:
    answering(stub, answer)
    if not expected:  # reading may do
        storage_checks.check_bucket("s3://studies/")
        return
    with pytest.raises(UserError, match=expected):
        storage_checks.check_bucket("s3://studies/")
    if answer[0] not in (407, 411):  # HEAD has no body
        with pytest.raises(UserError, match=expected):
            objects.read(URI)


def test_no_region_at_all(stub: StubStore) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "eu central")
        assert told(lambda: objects.read(URI)) == "AWS_DEFAULT_REGION 'eu central': not a region"
    assert not stub.requests


def test_an_endpoint_of_a_profile_is_named(
    stub: StubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(f"[profile house]\nendpoint_url = {stub.address}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "house")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    host = stub.address.removeprefix("http://")
    assert told(lambda: objects.read(URI)) == f"no such object in bucket 'studies' at {host}"


def test_an_object_in_glacier(stub: StubStore) -> None:
    body = (
        b"<Error><Code>InvalidObjectState</Code><StorageClass>DEEP_ARCHIVE</StorageClass></Error>"
    )
    answering(stub, (403, {}, body))
    with pytest.raises(ObjectArchived, match=r"archive storage \(DEEP_ARCHIVE\): restore it first"):
        objects.read(URI)
    assert ObjectArchived.code == "object_archived"


def test_the_permission_that_is_missing_is_named(stub: StubStore, tmp_path: Path) -> None:
    answering(stub, error(403, "AccessDenied", "Access Denied"))
    rights = [told(use).partition(" in bucket")[0].split()[-1] for use in uses(tmp_path)]
    get, put, seen = "s3:GetObject", "s3:PutObject", "s3:ListBucket"
    assert rights == [get, get, get, seen, seen, get, put, put, put]
    assert "or there is no such object, which S3 reports only with s3:ListBucket" in told(
        lambda: objects.read(URI)
    )
    message = "User: arn:aws:sts::1:x is not authorized to perform: kms:Decrypt on resource: k"
    answering(stub, error(403, "AccessDenied", message))
    with pytest.raises(AccessDenied, match="do not allow kms:Decrypt in bucket 'studies'"):
        objects.read(URI)


def test_certificates(tls: StubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = tls.address.removeprefix("https://")
    expected = (
        f"bucket 'studies' at {host} was not reached: its certificate is not trusted; set "
        "AWS_CA_BUNDLE to its CA"
    )
    assert told(lambda: objects.fetch(URI, tmp_path / "copy")) == expected
    for bundle in (tmp_path / "none.pem", tmp_path, Path(__file__)):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        assert told(lambda: objects.fetch(URI, tmp_path / "copy")).startswith(
            "AWS_CA_BUNDLE: not a file of PEM certificates"
        )
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CERTIFICATES / "localhost.pem"))
    objects.write(URI, b"x")
    assert objects.read(URI).data == b"x"


def test_no_tls_where_the_endpoint_says_it(
    stub: StubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", stub.address.replace("http", "https"))
    expected = r"no TLS there; check AWS_ENDPOINT_URL (https:// or http://, and the port)"
    assert expected in told(lambda: objects.fetch(URI, tmp_path / "copy"))


def test_a_proxy_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:hunter2@127.0.0.1:9")
    found = told(lambda: objects.fetch(URI, tmp_path / "copy"))
    assert found == (
        "bucket 'studies' at store.example:9000 was not reached through the proxy 127.0.0.1:9: "
        "correct HTTPS_PROXY or HTTP_PROXY, or add the store to NO_PROXY"
    )


def test_what_lies_on_this_machine_is_reached_through_no_proxy(
    stub: StubStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    objects.write(URI, b"x")
    assert stub.objects == {f"studies/{SECRET_NAME}": b"x"}
