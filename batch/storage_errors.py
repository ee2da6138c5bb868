"""What may go wrong with stored objects, and what boto3's errors mean.

StorageError         storage_unavailable   the store did not answer, or answered something else
├── ObjectMissing    object_missing        no such object (or no such bucket)
├── AccessDenied     access_denied         these credentials may not do this
├── ObjectChanged    object_changed        the object is no longer the one that was asked for
├── ObjectExists     object_exists         there is one already where a new one was to be made
├── ObjectEncoded    object_encoded        a Content-Encoding that is not decoded, or damaged
└── ObjectTooLarge   object_too_large      more bytes than the caller takes

Their messages name buckets and endpoints, never keys: a key may hold a patient's name. What only
the user can mend for the whole run (credentials, profile, endpoint address) is a UserError.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import botocore.exceptions as boto
import urllib3.exceptions

from sonode_console import UserError

_MISSING = {"NoSuchKey", "404"}
_DENIED = {"AccessDenied", "403", "AllAccessDisabled", "InvalidObjectState"}
# The second: another write of the same object is under way, at AWS.
_PRECONDITION = {"PreconditionFailed", "412", "ConditionalRequestConflict"}
_CREDENTIALS = {  # the store's answer: what to mend
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is not known there",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired",
    "InvalidToken": "AWS_SESSION_TOKEN is not valid there",
}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,  # a role's, when they have to be renewed in the night
    boto.TokenRetrievalError,
    boto.SSOError,
)


class StorageError(Exception):
    """The store did not answer or refused; `code` is stable and stands in results."""

    code = "storage_unavailable"


class ObjectMissing(StorageError):  # noqa: N818 - reads as the state it reports
    """There is no such object."""

    code = "object_missing"


class AccessDenied(StorageError):  # noqa: N818
    """The credentials (or the file's mode) do not allow this."""

    code = "access_denied"


class ObjectChanged(StorageError):  # noqa: N818
    """The object's etag is not the one that was asked for."""

    code = "object_changed"


class ObjectExists(StorageError):  # noqa: N818
    """There is an object already."""

    code = "object_exists"


class ObjectEncoded(StorageError):  # noqa: N818
    """The object's Content-Encoding is not decoded here, or its bytes are not what it says."""

    code = "object_encoded"


class ObjectTooLarge(StorageError):  # noqa: N818
    """The object holds more bytes than are taken."""

    code = "object_too_large"


def translated(error: Exception, bucket: str) -> StorageError | UserError:
    """Say what boto3's `error` means, without the key that boto3's own text may hold."""
    at = f"bucket {bucket!r} at {_endpoint()}"
    answer = ""
    if isinstance(error, boto.ClientError):
        answer = str(error.response.get("Error", {}).get("Code", ""))
    result: StorageError | UserError
    if isinstance(error, _NO_CREDENTIALS):
        result = UserError(
            f"no S3 credentials for {at}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "(or AWS_PROFILE)"
        )
    elif isinstance(error, boto.ProfileNotFound):
        result = UserError(f"AWS_PROFILE {os.environ.get('AWS_PROFILE')!r} is not configured")
    elif isinstance(error, boto.ParamValidationError):
        result = ObjectMissing(f"{at}: not a bucket and key that S3 allows")
    elif isinstance(error, ValueError):
        result = UserError(f"AWS_ENDPOINT_URL is no address: {_endpoint()}; write http://host:port")
    elif answer in _CREDENTIALS:
        result = UserError(f"the credentials were refused for {at}: {_CREDENTIALS[answer]}")
    elif answer == "NoSuchBucket":
        result = ObjectMissing(f"{at} does not exist: create it or mend its name")
    elif answer in _MISSING:
        result = ObjectMissing(f"no such object in {at}")
    elif answer in _DENIED:
        result = AccessDenied(f"the credentials do not allow this in {at}")
    elif answer in _PRECONDITION:
        result = ObjectChanged("the object changed after the manifest was written")
    elif isinstance(
        error, boto.ConnectionError | boto.HTTPClientError | urllib3.exceptions.HTTPError
    ):
        result = StorageError(f"{at} was not reached: check AWS_ENDPOINT_URL and the network")
    else:
        result = StorageError(f"{at} answered {answer or type(error).__name__}")
    return result


def _endpoint() -> str:
    """The endpoint as a person knows it; without what may stand before an @."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        return "AWS S3"
    return urlsplit(url).netloc.rpartition("@")[2] or url
