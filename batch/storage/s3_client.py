"""The S3 client of this process, and what it does otherwise than boto3 by itself.

Endpoint and credentials come from the usual AWS environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_DEFAULT_REGION, AWS_CA_BUNDLE.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions as boto
import urllib3
from botocore.config import Config
from botocore.parsers import ResponseParserError

from batch.storage.s3_errors import BodyFault, Redirected, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_THREADS = 32
"""How many threads may use the client at once without waiting for a connection."""


def client() -> S3Client:
    """The S3 client of this process for the AWS and proxy environment of this moment."""
    # Asked for each object, so without a regular expression, and without the values of the others.
    settings = tuple(
        (name, os.environ.get(name, ""))
        for name in os.environ
        if name.startswith("AWS_") or name.lower().endswith("_proxy")
    )
    return _new_client(os.getpid(), settings)


@lru_cache(maxsize=4)
def _new_client(_process: int, _settings: tuple[tuple[str, str], ...]) -> S3Client:
    # By process: a client carried through fork shares its sockets with its parent.
    session = boto3.session.Session()
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=MAX_THREADS,
        # boto3 by itself builds for each request, anew, what tells of the system and its versions.
        user_agent=f"sonode Boto3/{boto3.__version__}",
    )
    made = session.client("s3", config=config)
    if is_loopback(made.meta.endpoint_url):  # of this machine no proxy knows
        made = session.client("s3", config=config.merge(Config(proxies={})))
    made.meta.events.register_first("needs-retry.s3", _refuse_redirect)
    return made


def is_loopback(url: str) -> bool:
    """Whether `url` leads to this machine."""
    host = ""
    try:
        host = urlsplit(url).hostname or ""
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _refuse_redirect(response: tuple[Any, Mapping[str, Any]] | None, **_: object) -> None:
    """Raise for a redirect that is not to another region of AWS, which alone boto3 follows.

    It would take any other for one, and ask for the region, and be redirected, without an end.
    """
    if response is None:
        return
    http, parsed = response
    error = parsed.get("Error", {})
    if (
        http.status_code in (301, 302, 303, 307, 308)
        and "x-amz-bucket-region" not in http.headers
        and "Region" not in error
    ):
        to = urlsplit(http.headers.get("Location", ""))
        target = (
            f"{to.scheme}://{to.netloc}" if to.netloc else error.get("Endpoint", "another address")
        )
        raise Redirected(target=target)


@contextmanager
def faults(bucket: str) -> Iterator[None]:
    """Raise what boto3 raises in the block as what `storage_errors` has."""
    try:
        yield
    except (boto.ClientError, boto.BotoCoreError, ResponseParserError, ValueError) as error:
        raise translated(error, bucket, _endpoint()) from None


def _endpoint() -> str | None:
    """The client's endpoint, which a profile may have set; None where there is no client."""
    try:
        return client().meta.endpoint_url
    except (boto.BotoCoreError, ValueError):
        return None


@contextmanager
def body_faults() -> Iterator[None]:
    """Raise BodyFault for whatever ends the reading of a body: boto3's own retries end before it.

    urllib3's errors come through boto3 as they are, but for two.
    """
    try:
        yield
    except (boto.BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
        raise BodyFault(error=error) from None
