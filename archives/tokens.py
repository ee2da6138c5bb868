"""TorchServe's tokens: read from its key file, renewed in time."""

from __future__ import annotations

import json
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import httpx

RENEW_BEFORE = timedelta(minutes=5)
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""TorchServe speaks plain HTTP here; to load the system's certificates costs 20 ms a call."""

Kind = Literal["inference", "management", "api"]


class Keys:
    """The tokens of one running TorchServe. `management_url` is the base of that API."""

    def __init__(self, key_file: Path, management_url: str) -> None:
        self.key_file = key_file
        self.management_url = management_url
        self._renewing = threading.Lock()

    def token(self, kind: Kind = "inference", renew_before: timedelta = RENEW_BEFORE) -> str:
        """Return the token for this API, renewed when it has less than `renew_before` to live.

        A renewal voids the old token at once: ask at each use, do not keep it. Raises
        FileNotFoundError where TorchServe is not there (yet), json.JSONDecodeError while it writes
        the file, httpx.HTTPError where it does not renew.
        """
        with self._renewing:
            keys = json.loads(self.key_file.read_text())
            if kind == "api":
                return str(keys["API"]["key"])
            expiry = datetime.fromisoformat(keys[kind]["expiration time"])
            if expiry - datetime.now(UTC) < renew_before:
                url = f"{self.management_url}/token?type={kind}"
                ask("GET", url, keys["API"]["key"]).raise_for_status()
                keys = json.loads(self.key_file.read_text())
            return str(keys[kind]["key"])


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
    """Call TorchServe on this machine."""
    return httpx.request(
        method,
        url,
        params=params,
        content=content,
        headers={**(headers or {}), "Authorization": f"Bearer {token}"},
        timeout=timeout_s,
        trust_env=False,  # a proxy of the environment must not see calls to this machine
        verify=NO_CERTIFICATES,
    )
