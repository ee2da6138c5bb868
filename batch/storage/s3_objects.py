"""Objects in S3, by bucket and key; `local_files` has the same for files."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import botocore.exceptions as boto

from batch.storage import listing, local_files
from batch.storage.content_encoding import coding_of, decoded
from batch.storage.errors import (
    ConditionUnknown,
    ObjectChanged,
    ObjectEncoded,
    ObjectExists,
    ObjectMissing,
    StorageError,
    check_size,
)
from batch.storage.s3_client import body_faults, client, faults
from batch.storage.s3_errors import BodyFault

T = TypeVar("T")
_MISMATCH = {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}


def read(
    bucket: str, key: str, wanted: str | None, limit: int | None, admit: Callable[[int], None]
) -> tuple[bytes, str]:
    """As `objects.read`: bytes and etag; with `wanted`, only if that is still its etag."""
    condition = {} if wanted is None else {"IfMatch": f'"{wanted}"'}

    def get() -> tuple[bytes, str]:
        # Not of boto3's own type, which promises a length.
        answer: Mapping[str, Any] = client().get_object(Bucket=bucket, Key=key, **condition)  # type: ignore[arg-type]
        with closing(answer["Body"]) as body:
            etag = _etag(answer)
            if wanted not in (None, etag):  # some stores ignore If-Match of a GET
                raise ObjectChanged("the object changed after the manifest was written")
            most = None
            if "ContentLength" in answer:
                check_size(answer["ContentLength"], limit)
                admit(answer["ContentLength"])
            elif limit is not None:  # some stores and proxies send in chunks, and do not say
                most = limit
            with body_faults():
                data = body.read(most)
                if most is not None:
                    data += body.read(1)  # boto3 looks at the checksum at the end alone
            check_size(len(data), limit)
        return decoded(data, answer.get("ContentEncoding", ""), limit), etag

    with faults(bucket):
        return _twice(get)


def fetch(bucket: str, key: str, path: Path) -> None:
    """As `objects.fetch`."""

    def copy() -> None:
        answer = client().get_object(Bucket=bucket, Key=key)
        with closing(answer["Body"]) as body, path.open("wb") as file:
            if coding := coding_of(answer.get("ContentEncoding", "")):
                raise ObjectEncoded(
                    f"its Content-Encoding {coding!r} is not decoded here; store it without"
                )
            while True:
                with body_faults():
                    piece = body.read(1 << 20)
                if not piece:  # the length and the checksum are right
                    return
                file.write(piece)

    # In this order: boto3's errors of connections are OSErrors, too, and none of the file system.
    with local_files.faults(), faults(bucket):
        _twice(copy)


def first_bytes(bucket: str, key: str, count: int) -> bytes:
    """As `objects.first_bytes`; not by Range, which an empty object does not have."""
    with faults(bucket):
        body = client().get_object(Bucket=bucket, Key=key)["Body"]
        with closing(body), body_faults():
            return body.read(count)


def etag_of(bucket: str, key: str) -> str:
    """The object's etag of this moment."""
    with faults(bucket):
        return _etag(client().head_object(Bucket=bucket, Key=key))


def exists(bucket: str, key: str) -> bool:
    """Whether there is an object; listed, since no answer to HEAD tells why it was refused."""
    with faults(bucket):
        page = listing.page_of(bucket, Prefix=key, MaxKeys=1)
    return any(found["Key"] == key for found in page.get("Contents", []))


def write(bucket: str, key: str, data: bytes, **condition: str) -> None:
    """As `objects.write`; `condition`: IfNoneMatch or IfMatch, where the store has them."""
    with faults(bucket):
        s3 = client()
    config: Any = s3.meta.config  # its options are not in the type
    if config.request_checksum_calculation != "when_required":
        # As a header of its own. boto3 by itself would frame the body and put it behind, which
        # stores that do not know that write into the object as it comes.
        condition["ChecksumCRC32"] = b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()

    def put() -> None:
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=data, **condition)  # type: ignore[arg-type]
        except boto.ClientError as error:
            if error.response.get("Error", {}).get("Code") in _MISMATCH:
                raise BodyFault(error=error) from None  # damaged in transfer
            raise

    with faults(bucket):
        _twice(put)


def create(bucket: str, key: str, data: bytes, *, emulated: bool) -> None:
    """As `objects.create`."""
    exists_already = ObjectExists("the object exists already")
    try:
        write(bucket, key, data, IfNoneMatch="*")
    except ObjectChanged:
        raise exists_already from None
    except ConditionUnknown:
        if not emulated:
            raise
        if exists(bucket, key):
            raise exists_already from None
        write(bucket, key, data)


def replace(bucket: str, key: str, data: bytes, wanted: str, *, emulated: bool) -> None:
    """As `objects.replace`."""
    try:
        write(bucket, key, data, IfMatch=f'"{wanted}"')
    except ObjectMissing:
        raise ObjectChanged("the object is gone") from None
    except ConditionUnknown:
        if not emulated:
            raise
        if etag_of(bucket, key) != plain(wanted):
            raise ObjectChanged("the object has changed") from None
        write(bucket, key, data)


def plain(etag: str) -> str:
    """Without quotes, and without the W/ of proxies that compress: the store's own has none."""
    return etag.removeprefix("W/").strip('"')


def _twice(transfer: Callable[[], T]) -> T:
    """Transfer a body, once again if it arrived damaged."""
    try:
        return transfer()
    except BodyFault:
        return transfer()


def _etag(answer: Mapping[str, Any]) -> str:
    if "ETag" not in answer:
        raise StorageError("the answer has no ETag; a proxy between here and the store drops it")
    return plain(answer["ETag"])
