"""Objects by URI, local path or s3://, with one small surface.

What may go wrong is in errors.py, the S3 client in s3_client.py, local files in
local_files.py, and what is asked of a store before a run in checks.py.
"""

from __future__ import annotations

import os
import shutil
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import botocore.exceptions as boto

from batch.storage import listing, local_files
from batch.storage.content_encoding import coding_of, decoded
from batch.storage.errors import (
    ConditionUnknown,
    ObjectChanged,
    ObjectEncoded,
    ObjectExists,
    ObjectMissing,
    ObjectTooLarge,
    StorageError,
)
from batch.storage.s3_client import body_faults, client, faults
from batch.storage.s3_errors import BodyFault

T = TypeVar("T")
_MISMATCH = {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}


class Object(NamedTuple):
    """An object's bytes and its etag: the store's own, or "sha256:<hex>" of a local file."""

    data: bytes
    etag: str


def is_s3(uri: str) -> bool:
    """Whether `uri` names an object store rather than a local path."""
    return uri.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Split s3://bucket/key into (bucket, key); the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def join(folder: str, name: str) -> str:
    """Put `name` (which may hold slashes) below `folder`."""
    return f"{folder.rstrip('/')}/{name}" if is_s3(folder) else str(Path(folder) / name)


def absolute(uri: str) -> str:
    """Make a local path independent of the working directory."""
    return uri if is_s3(uri) else str(Path(uri).absolute())


def parent(uri: str) -> str:
    """Name the folder that holds `uri`."""
    return uri.rpartition("/")[0] if is_s3(uri) else str(Path(uri).parent)


def read(
    uri: str,
    if_match: str | None = None,
    limit: int | None = None,
    admit: Callable[[int], None] = lambda size: None,
) -> Object:
    """Read a whole object; with `if_match`, only if that is still its etag (quoted or not).

    What a store says to be gzip (Content-Encoding) is inflated, within `limit`.

    An object of more than `limit` bytes is refused before its bytes are read, and `admit` is called
    with their number and may wait (it is called again if the store has to be asked again).

    Raises ObjectMissing, AccessDenied, ObjectChanged, ObjectTooLarge, ObjectEncoded, StorageError;
    UserError for credentials.
    """
    wanted = None if if_match is None else _plain(if_match)
    if is_s3(uri):
        return _read_s3(uri, wanted, limit, admit)
    with local_files.faults(), Path(uri).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        _check_size(size, limit)
        admit(size)
        data = file.read()
    etag = local_files.etag(data)
    if wanted not in (None, etag):
        raise ObjectChanged("the object changed after the manifest was written")
    return Object(data, etag)


def fetch(uri: str, path: Path) -> None:
    """Copy a whole object to a local file, a piece at a time. Raises as `read` does."""
    if not is_s3(uri):
        with local_files.faults():
            shutil.copyfile(uri, path)
        return
    bucket, key = split_s3(uri)

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


def etag_of(uri: str, limit: int | None = None) -> str:
    """The object's etag of this moment. Raises as `read` does.

    A local file is read for it, a piece at a time, unless it has more than `limit` bytes.
    """
    if not is_s3(uri):
        with local_files.faults(), Path(uri).open("rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, limit)
            return local_files.etag_of(file)
    bucket, key = split_s3(uri)
    with faults(bucket):
        return _etag(client().head_object(Bucket=bucket, Key=key))


def write(uri: str, data: bytes) -> None:
    """Write a whole object: it appears complete or not at all, and replaces an earlier one."""
    if is_s3(uri):
        _put(uri, data)
    else:
        local_files.write(Path(uri), data)


def create(uri: str, data: bytes, *, emulated: bool = True) -> None:
    """Write a whole object where there is none; of several that try at once, one succeeds.

    A store that does not know conditions is asked first and then written to, which is safe for a
    single writer alone; without `emulated` it raises ConditionUnknown. Raises ObjectExists, or as
    `read` does.
    """
    if not is_s3(uri):
        local_files.create(Path(uri), data)
        return
    exists_already = ObjectExists("the object exists already")
    try:
        _put(uri, data, IfNoneMatch="*")
    except ObjectChanged:
        raise exists_already from None
    except ConditionUnknown:
        if not emulated:
            raise
        if exists(uri):
            raise exists_already from None
        _put(uri, data)


def replace(uri: str, data: bytes, etag: str, *, emulated: bool = True) -> None:
    """Write a whole object in the place of the one that has this etag; `emulated` as in `create`.

    Raises ObjectChanged where it has another by now, or is gone; else as `read` does.
    """
    if not is_s3(uri):
        local_files.replace(Path(uri), data, etag)
        return
    try:
        _put(uri, data, IfMatch=f'"{etag}"')
    except ObjectMissing:
        raise ObjectChanged("the object is gone") from None
    except ConditionUnknown:
        if not emulated:
            raise
        if etag_of(uri) != _plain(etag):
            raise ObjectChanged("the object has changed") from None
        _put(uri, data)


def update(uri: str, data: bytes, etag: str | None) -> bool:
    """Replace the object that has this etag, or with None create one; False if another was faster.

    Raises as `read` does.
    """
    try:
        if etag is None:
            create(uri, data)
        else:
            replace(uri, data, etag)
    except (ObjectExists, ObjectChanged):
        return False
    return True


def _put(uri: str, data: bytes, **condition: str) -> None:
    bucket, key = split_s3(uri)
    config: Any = client().meta.config  # its options are not in the type
    if config.request_checksum_calculation != "when_required":
        # As a header of its own. boto3 by itself would frame the body and put it behind, which
        # stores that do not know that write into the object as it comes.
        condition["ChecksumCRC32"] = b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()

    def put() -> None:
        try:
            client().put_object(Bucket=bucket, Key=key, Body=data, **condition)  # type: ignore[arg-type]
        except boto.ClientError as error:
            if error.response.get("Error", {}).get("Code") in _MISMATCH:
                raise BodyFault(error=error) from None  # damaged in transfer
            raise

    with faults(bucket):
        _twice(put)


def _twice(transfer: Callable[[], T]) -> T:
    """Transfer a body, once again if it arrived damaged."""
    try:
        return transfer()
    except BodyFault:
        return transfer()


def _etag(answer: Mapping[str, Any]) -> str:
    if "ETag" not in answer:
        raise StorageError("the answer has no ETag; a proxy between here and the store drops it")
    return _plain(answer["ETag"])


def _plain(etag: str) -> str:
    """Without quotes, and without the W/ of proxies that compress: the store's own has none."""
    return etag.removeprefix("W/").strip('"')


def _check_size(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise ObjectTooLarge(f"the object has {size} bytes; at most {limit} are read")


def first_bytes(uri: str, count: int) -> bytes:
    """Read the first bytes of an object, fewer where it has fewer. Raises as `read` does."""
    if not is_s3(uri):
        with local_files.faults(), Path(uri).open("rb") as file:
            return file.read(count)
    bucket, key = split_s3(uri)
    with faults(bucket):
        body = client().get_object(Bucket=bucket, Key=key)["Body"]
        with closing(body), body_faults():  # not by Range, which an empty object does not have
            return body.read(count)


def list_files(folder: str, *, deep: bool = False) -> list[str]:
    """List the URIs of the objects in `folder`, sorted; none if there is no folder.

    Those directly in it, or with `deep` also those in folders below that have no `_` or `.` before
    their name, which readers of Parquet pass over as well.
    """
    if not is_s3(folder):
        return sorted(listing.files_in(folder, deep=deep))
    bucket, key = split_s3(folder)
    return sorted(f"s3://{bucket}/{found}" for found in listing.keys_in(bucket, key, deep=deep))


def exists(uri: str) -> bool:
    """Whether there is an object (not a folder) at `uri`."""
    if not is_s3(uri):
        return Path(uri).is_file()
    bucket, key = split_s3(uri)
    with faults(bucket):
        # Listed, not HEAD: an answer to HEAD has no body that would tell why it was refused.
        page = listing.page_of(bucket, Prefix=key, MaxKeys=1)
    return any(found["Key"] == key for found in page.get("Contents", []))


def _read_s3(
    uri: str, wanted: str | None, limit: int | None, admit: Callable[[int], None]
) -> Object:
    bucket, key = split_s3(uri)
    condition = {} if wanted is None else {"IfMatch": f'"{wanted}"'}

    def get() -> Object:
        answer = client().get_object(Bucket=bucket, Key=key, **condition)  # type: ignore[arg-type]
        with closing(answer["Body"]) as body:
            _check_size(answer["ContentLength"], limit)
            admit(answer["ContentLength"])
            with body_faults():
                data = body.read()
        data = decoded(data, answer.get("ContentEncoding", ""), limit)
        return Object(data, _etag(answer))

    with faults(bucket):
        return _twice(get)
