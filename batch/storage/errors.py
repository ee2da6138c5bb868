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


class StorageError(Exception):
    """The store did not answer or refused; `code` is stable and written to the results."""

    code = "storage_unavailable"


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
    """The object's etag is not the one that was asked for."""

    code = "object_changed"


class ObjectExists(StorageError):  # noqa: N818
    """There is an object already."""

    code = "object_exists"


class ObjectEncoded(StorageError):  # noqa: N818
    """The object's Content-Encoding is not decoded here, or its bytes are not what it says."""

    code = "object_encoded"


class ConditionUnknown(StorageError):  # noqa: N818
    """The store has no conditional writes."""


class ObjectTooLarge(StorageError):  # noqa: N818
    """The object holds more bytes than are taken."""

    code = "object_too_large"
