"""What may go wrong with stored objects.

StorageError          storage_unavailable   the store did not answer, or answered something else
├── ObjectMissing     object_missing        no such object (or no such bucket)
├── AccessDenied      access_denied         these credentials may not do this
├── ObjectArchived    object_archived       it has to be restored first (Glacier)
├── ObjectChanged     object_changed        the object is no longer the one that was asked for
├── ObjectExists      object_exists         there is one already where a new one was to be made
├── ObjectEncoded     object_encoded        a Content-Encoding that is not decoded, or damaged
├── ConditionUnknown  storage_unavailable   the store has no conditional writes
└── ObjectTooLarge    object_too_large      more bytes than the caller takes

Their messages name buckets and endpoints, never keys: a key may hold a patient's name. What only
the user can correct for the whole run is a UserError; what boto3's errors mean is in s3_errors.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sonode.console import UserError


class StorageError(Exception):
    """The store did not answer, or refused."""

    code = "storage_unavailable"
    """Stable, and written to the results."""


class ObjectMissing(StorageError):  # noqa: N818 - reads as the state it reports
    """There is no such object."""

    code = "object_missing"


class AccessDenied(StorageError):  # noqa: N818
    """The credentials (or the file's mode) do not allow this."""

    code = "access_denied"


class ObjectArchived(StorageError):  # noqa: N818
    """The object is in archive storage, from which it has to be restored first."""

    code = "object_archived"


class ObjectChanged(StorageError):  # noqa: N818
    """The object has changed since its ETag was read."""

    code = "object_changed"


class ObjectExists(StorageError):  # noqa: N818
    """There is already an object."""

    code = "object_exists"


class ObjectEncoded(StorageError):  # noqa: N818
    """The object has an unsupported Content-Encoding, or bytes that do not match it."""

    code = "object_encoded"


class ConditionUnknown(StorageError):  # noqa: N818
    """The store has no conditional writes."""


class ObjectTooLarge(StorageError):  # noqa: N818
    """The object is larger than the limit (an image: 256 MiB)."""

    code = "object_too_large"


@contextmanager
def as_user_error(where: str) -> Iterator[None]:
    """Raise a StorageError of the block as a UserError: `WHERE: why`."""
    try:
        yield
    except StorageError as error:
        raise UserError(f"{where}: {error}") from None


def check_size(size: int, limit: int | None) -> None:
    """Raise ObjectTooLarge for more bytes than `limit`."""
    if limit is not None and size > limit:
        raise ObjectTooLarge(f"the object has {size} bytes; at most {limit} are read")
