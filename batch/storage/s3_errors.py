"""What boto3's errors mean: a StorageError, or a UserError for what only the user can correct.

Of the latter kind is what is true of the whole bucket: credentials, endpoint, region, clock,
certificates. No message holds a key, as boto3's own may.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions as boto

from batch.storage.errors import (
    AccessDenied,
    ConditionUnknown,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    StorageError,
)
from sonode.certificate_fault import certificate_fault
from sonode.console import UserError

_MISSING = {"NoSuchKey", "404"}
_DENIED = {"AccessDenied", "403", "AllAccessDisabled"}
# The second: another write of the same object is under way, at AWS.
_PRECONDITION = {"PreconditionFailed", "412", "ConditionalRequestConflict"}
_CREDENTIALS = {  # the store's answer: what to correct
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is not known there",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired",
    "InvalidToken": "AWS_SESSION_TOKEN is not valid there",
}
_MALFORMED = "AuthorizationHeaderMalformed"
_REGION = {  # of another region than AWS_DEFAULT_REGION
    "PermanentRedirect",
    _MALFORMED,
    "IllegalLocationConstraintException",
    "InvalidRegion",
}
_CLOCK = {"RequestTimeTooSkewed", "RequestInTheFuture", "RequestExpired"}
_UNFRAMED = {"MissingContentLength", "411"}
_NEEDS = {  # what IAM calls the right to an operation, where that is not its name
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,  # a role's, when they have to be renewed in the night
    boto.TokenRetrievalError,
    boto.SSOError,
)
_SPOILT = (boto.FlexibleChecksumError, boto.ChecksumError, boto.ClientError)


class Redirected(boto.BotoCoreError):
    """The endpoint sends to another address."""

    fmt = "redirected to {target}"


class BodyFault(boto.BotoCoreError):
    """A body was cut off, or changed, in transfer."""

    fmt = "the body came to harm: {error}"


def translated(error: Exception, bucket: str, url: str | None = None) -> StorageError | UserError:
    """Say what boto3's `error` means, without the key that boto3's own text may hold.

    `url`: the endpoint, as far as there is a client that knows it; else that of the environment.
    """
    at = f"bucket {bucket!r} at {_endpoint(url)}"
    if isinstance(error, boto.ClientError):
        return _answered(error, at)
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
    elif isinstance(error, Redirected):
        target = error.kwargs["target"]
        result = UserError(
            f"{at} redirects to {target}: set AWS_ENDPOINT_URL to the store's address"
        )
    elif isinstance(error, BodyFault):
        spoilt = isinstance(error.kwargs["error"], _SPOILT)
        how = "with a wrong checksum" if spoilt else "incomplete"
        result = StorageError(f"an object of {at} arrived {how}, twice")
    elif isinstance(error, boto.ConnectionError | boto.HTTPClientError):
        result = _unreached(error, at)
    elif isinstance(error, boto.InvalidRegionError):
        result = UserError(
            f"AWS_DEFAULT_REGION {os.environ.get('AWS_DEFAULT_REGION')!r}: not a region"
        )
    elif isinstance(error, ValueError):
        result = UserError(
            f"AWS_ENDPOINT_URL is not an address: {_endpoint(url)}; write http://host:port"
        )
    else:
        result = StorageError(f"{at} cannot be used: boto3 raised {type(error).__name__}")
    return result


def _answered(error: boto.ClientError, at: str) -> StorageError | UserError:
    """Say what an answer of the store means."""
    fault: dict[str, Any] = {**error.response.get("Error", {})}
    answer = str(fault.get("Code", ""))
    result: StorageError | UserError
    if answer in _CREDENTIALS:
        result = UserError(f"the credentials were refused for {at}: {_CREDENTIALS[answer]}")
    elif answer in _REGION:
        region = fault.get("Region", "the bucket's")
        # For an unknown key, stores answer as for a wrong region, but name no other region.
        key = (
            ", and see AWS_ACCESS_KEY_ID" if answer == _MALFORMED and "Region" not in fault else ""
        )
        result = UserError(f"{at} is in another region: set AWS_DEFAULT_REGION to {region}{key}")
    elif answer in _CLOCK:
        result = UserError(f"{at} and this machine differ in time: set this machine's clock (NTP)")
    elif answer in _UNFRAMED:
        result = UserError(
            f"{at} does not take checksums: set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
        )
    elif answer == "NoSuchBucket":
        result = ObjectMissing(f"{at} does not exist: create it or correct its name")
    elif answer in _MISSING:
        result = ObjectMissing(f"no such object in {at}")
    elif answer in _DENIED:
        result = AccessDenied(_denied(error, at))
    elif answer == "InvalidObjectState":
        where = fault.get("StorageClass", "Glacier")
        result = ObjectArchived(f"the object is in archive storage ({where}): restore it first")
    elif answer in _PRECONDITION:
        result = ObjectChanged("the object changed after the manifest was written")
    elif answer in ("NotImplemented", "501"):
        result = ConditionUnknown(f"{at} does not implement {error.operation_name} as used here")
    else:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        result = StorageError(f"{at} answered {answer or status}")
        if status == 407:
            result = _proxy_wants_password(at)
    return result


def _denied(error: boto.ClientError, at: str) -> str:
    """Name the permission that is missing: AWS does, for others it follows from the operation."""
    operation = error.operation_name
    named = re.search(r"perform: ([\w-]+:\w+)", error.response["Error"].get("Message") or "")
    right = named[1] if named else _NEEDS.get(operation, f"s3:{operation}")
    or_else = ""
    if right == "s3:GetObject":
        or_else = ", or there is no such object, which S3 reports only with s3:ListBucket"
    return f"the credentials do not allow {right} in {at}{or_else}"


def _unreached(error: boto.BotoCoreError, at: str) -> StorageError | UserError:
    """Say why there is no connection, and which setting is to be looked at."""
    inner = str(error.kwargs.get("error", ""))
    if isinstance(error, boto.ProxyConnectionError):
        proxy = urlsplit(str(error.kwargs["proxy_url"])).netloc.rpartition("@")[2]
        if " 407 " in inner:
            return _proxy_wants_password(at)
        return StorageError(
            f"{at} was not reached through the proxy {proxy}: correct HTTPS_PROXY or HTTP_PROXY, "
            "or add the store to NO_PROXY"
        )
    if isinstance(error, boto.SSLError):
        if re.search("No such file|Is a directory|NO_CERTIFICATE|PEM", inner):
            return UserError(f"AWS_CA_BUNDLE: not a file of PEM certificates, which {at} needs")
        why = certificate_fault(inner, "set AWS_CA_BUNDLE to its CA") or (
            "no TLS there; check AWS_ENDPOINT_URL (https:// or http://, and the port)"
        )
        return StorageError(f"{at} was not reached: {why}")
    return StorageError(
        f"{at} was not reached ({_cause(error)}): check AWS_ENDPOINT_URL and the network"
    )


def _proxy_wants_password(at: str) -> StorageError:
    return StorageError(
        f"{at} was not reached: the proxy of HTTPS_PROXY or HTTP_PROXY requires a user and password"
    )


def _cause(error: BaseException | None) -> str:
    """The system's own error, from below those that urllib3 and boto3 put around it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        kwargs = getattr(error, "kwargs", {})
        error = kwargs.get("error") or getattr(error, "reason", None) or error.__context__
        error = error if isinstance(error, BaseException) else None
    for known, words in {
        socket.gaierror: "its name is not known",
        ConnectionRefusedError: "refused",
        ConnectionResetError: "the connection was reset",
        TimeoutError: "no answer in time",
        boto.ReadTimeoutError: "no answer in time",
        boto.ConnectTimeoutError: "no answer in time",
    }.items():
        if any(isinstance(one, known) for one in seen):
            return words
    return type(seen[-1]).__name__


def _endpoint(url: str | None) -> str:
    """The endpoint as a person knows it; without what may stand before an @."""
    url = url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url or (urlsplit(url).hostname or "").endswith(".amazonaws.com"):
        return "AWS S3"
    return urlsplit(url).netloc.rpartition("@")[2] or url
