"""TorchServe's tokens: read from its key file, renewed in time."""

from __future__ import annotations

import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import httpx
from pydantic import TypeAdapter

RENEW_BEFORE = timedelta(minutes=5)
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""TorchServe speaks plain HTTP here; to load the system's certificates costs 20 ms a call."""
RENEW_PAUSE_S = 30.0
"""Between renewals that do not help: clocks of the two machines differ, or tokens live shortly."""

Kind = Literal["inference", "management", "api"]
_KEYS = TypeAdapter(dict[str, dict[str, str]])
MAX_BYTES = 10_000_000
"""Limit of an answer of TorchServe's management API."""


class Keys:
    """The tokens of one running TorchServe. `management_url` is the base of that API."""

    def __init__(self, key_file: Path, management_url: str) -> None:
        self.key_file = key_file
        self.management_url = management_url
        self._renewing = threading.Lock()
        self._renew_at: dict[Kind, float] = {}

    def token(
        self, kind: Kind = "inference", renew_before: timedelta = RENEW_BEFORE, refused: str = ""
    ) -> str:
        """Return the token for this API, renewed when it has less than `renew_before` to live.

        It is renewed, too, if it is the one that was `refused`: by the clock of TorchServe's
        machine it may have expired.

        A renewal voids the old token at once: ask at each use, do not keep it. Raises
        FileNotFoundError where TorchServe is not there (yet), ValueError while it writes the file,
        KeyError where it has no such token, httpx.HTTPError where it does not renew.
        """
        with self._renewing:
            keys = self._read()
            if kind == "api":
                return str(keys["API"]["key"])
            now = time.monotonic()
            void = keys[kind]["key"] == refused
            due = void or _left(keys[kind]) < renew_before
            if due and now >= self._renew_at.get(kind, 0.0):
                url = f"{self.management_url}/token?type={kind}"
                ask("GET", url, keys["API"]["key"]).raise_for_status()
                keys = self._read()
                if void or _left(keys[kind]) < renew_before:
                    self._renew_at[kind] = now + RENEW_PAUSE_S
            return str(keys[kind]["key"])

    def _read(self) -> dict[str, dict[str, str]]:
        return _KEYS.validate_json(self.key_file.read_bytes())


def _left(token: dict[str, str]) -> timedelta:
    """How long it has to live."""
    return datetime.fromisoformat(token["expiration time"]) - datetime.now(UTC)


def ask(
    method: str,
    url: str,
    token: str,
    *,
    params: dict[str, str] | None = None,
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout_s: float = 10.0,
) -> httpx.Response:
    """Call TorchServe on this machine.

    The answer has no headers, and its body is as it came: unpacked, it could be a thousand times as
    large. Raises httpx.HTTPError where it does not answer within `timeout_s`, or has
    MAX_BYTES to say.
    """
    until = time.monotonic() + timeout_s
    with httpx.stream(
        method,
        url,
        params=params,
        content=content,
        headers={**(headers or {}), "Authorization": f"Bearer {token}"},
        timeout=timeout_s,
        trust_env=False,  # a proxy of the environment must not see calls to this machine
        verify=NO_CERTIFICATES,
    ) as answer:
        body = bytearray()
        for part in answer.iter_raw():  # `timeout` is that of each part
            body += part
            if len(body) > MAX_BYTES or time.monotonic() > until:
                raise httpx.ReadTimeout("it does not come to an end", request=answer.request)
        return httpx.Response(answer.status_code, content=bytes(body), request=answer.request)
