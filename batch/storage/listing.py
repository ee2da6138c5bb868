"""What a folder holds, in a store and on disk; folders named _ or . something are passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batch.storage import local_files, s3_client
from batch.storage.errors import StorageError

_LAST = "\U0010ffff"  # keys stand in the order of their bytes: behind all that begin alike


def keys_in(bucket: str, folder: str, *, deep: bool) -> Iterator[str]:
    """Yield the keys in a folder of a bucket, with `deep` also those below it."""
    prefix = f"{folder.rstrip('/')}/" if folder.strip("/") else ""
    # Deep is flat, whatever slashes keys have: with a delimiter some stores leave out folders of
    # folders.
    where = {"Prefix": prefix} if deep else {"Prefix": prefix, "Delimiter": "/"}
    following: dict[str, str] = {}
    keys: list[str] = []
    with s3_client.faults(bucket):
        while True:
            page = page_of(bucket, **where, **following)
            before, keys = keys, [one["Key"] for one in page.get("Contents", [])]
            if keys and keys[0] <= following.get("StartAfter", ""):
                raise StorageError(
                    f"bucket {bucket!r} cannot be listed: the store ignores StartAfter"
                )
            if keys and keys == before:
                raise StorageError(
                    f"bucket {bucket!r} cannot be listed: the store ignores ContinuationToken"
                )
            for key in keys:
                folders = key.removeprefix(prefix).split("/")[:-1]
                # The S3 console makes "folder" objects whose key ends in a slash.
                if not key.endswith("/") and not any(map(_is_hidden, folders)):
                    yield key
            if not page.get("IsTruncated"):
                return
            if "NextContinuationToken" not in page:
                raise StorageError(
                    f"bucket {bucket!r} cannot be listed: there are more keys, and the store gives "
                    "no NextContinuationToken"
                )
            following = {"ContinuationToken": page["NextContinuationToken"]}
            first, slash, _ = keys[-1].removeprefix(prefix).partition("/") if keys else ("", "", "")
            if slash and _is_hidden(first):  # which may hold millions: on behind it
                following = {"StartAfter": f"{prefix}{first}/{_LAST}"}


def page_of(bucket: str, **where: Any) -> Any:
    """Ask for one page of a listing; anything else, as a proxy's own page, is a StorageError."""
    page = s3_client.client().list_objects_v2(Bucket=bucket, **where)
    if "IsTruncated" not in page:  # boto3 takes any XML, and nothing at all, for an empty listing
        raise StorageError(
            f"bucket {bucket!r} cannot be listed: the answer is not that of an S3 store; check "
            "AWS_ENDPOINT_URL and the proxy"
        )
    return page


def files_in(folder: str, *, deep: bool) -> Iterator[str]:
    """Yield the paths of the files in a local folder, with `deep` also of those below it."""

    def refused(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    seen = set()
    with local_files.faults():
        for place, folders, names in os.walk(folder, onerror=refused, followlinks=True):
            yield from (str(path) for name in names if (path := Path(place, name)).is_file())
            if not deep:
                return
            seen.add(Path(place).resolve())
            folders[:] = [
                name
                for name in folders
                # Links are followed, but not in a circle.
                if not _is_hidden(name) and Path(place, name).resolve() not in seen
            ]


def _is_hidden(folder: str) -> bool:
    return folder.startswith(("_", "."))
