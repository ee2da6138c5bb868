"""What is asked of stores before a run, so that it ends at its start where it must fail.

Results are kept apart by two conditions on PUT, which not every store honours: `If-None-Match: *`
makes an object only where there is none, `If-Match` replaces only the one that was read. A store
may refuse them (501), or, worse, write all the same: then two runs at once overwrite each other's
rows. So both are tried, and what was written is read again.
"""

from __future__ import annotations

from batch import layout
from batch.storage import objects
from batch.storage.errors import (
    AccessDenied,
    ConditionUnknown,
    ObjectChanged,
    ObjectExists,
    StorageError,
)
from sonode.console import UserError

_DATA = b"Written by every run, to see how this store treats conditions and checksums.\n"
_OTHER = "0" * 32


def check_bucket(uri: str) -> None:
    """Make sure before a run that the bucket of `uri` exists and knows the credentials.

    Raises UserError otherwise. That the bucket may not be listed is no fault: reading may do.
    """
    try:
        objects.exists(objects.join(uri, "_"))  # any key: for none s3rver cannot list
    except AccessDenied:
        return
    except StorageError as error:
        raise UserError(str(error)) from None


def check_readable(out: str) -> None:
    """Make sure that a folder of results can be listed. Raises UserError."""
    try:
        objects.exists(objects.join(out, layout.STORE_CHECK))
    except AccessDenied as error:
        raise UserError(
            f"results cannot be written to {out}: {error}; a run has to see what exists "
            "(docs/batch.md lists the permissions that are needed)"
        ) from None
    except StorageError as error:
        raise UserError(f"results cannot be written to {out}: {error}") from None


def check_store(out: str, *, single_writer: bool = False) -> None:
    """Write and read a probe in the folder of results, with and without conditions.

    `single_writer`: nothing else writes to that folder meanwhile, so that conditions may go
    unheeded. Local folders have them. The probe is the same for all runs, and stays: to remove it
    would need a permission more. Raises UserError.
    """
    if not objects.is_s3(out):
        return
    uri = objects.join(out, layout.STORE_CHECK)
    try:
        objects.write(uri, _DATA)
        if objects.read(uri).data != _DATA:
            raise UserError(
                f"results cannot be written to {out}: the store returns other bytes than were "
                "written; set AWS_REQUEST_CHECKSUM_CALCULATION=when_required, and if that does not "
                "help, write to another store"
            )
        unheeded = _unheeded(uri)
    except StorageError as error:
        raise UserError(f"results cannot be written to {out}: {error}") from None
    if unheeded is not None and not single_writer:
        raise UserError(
            f"results cannot be written to {out}: the store {unheeded}, so that two runs at once "
            "would overwrite each other's rows; write to one that has conditional writes (AWS, "
            "SeaweedFS, MinIO), or give --single-writer if nothing else writes there"
        )


def _unheeded(uri: str) -> str | None:
    """Say what the store does with conditions, or None where it honours them."""
    try:
        objects.create(uri, _DATA, emulated=False)
        return "ignores If-None-Match"
    except ObjectExists:
        pass
    except ConditionUnknown:
        return "does not know If-None-Match (501)"
    try:
        objects.replace(uri, _DATA, _OTHER, emulated=False)
        return "ignores If-Match"
    except ObjectChanged:
        return None
    except ConditionUnknown:
        return "does not know If-Match (501)"
