"""Tokens, by TorchServe's rule: three keys in key_file.json, two of which are renewed in time."""

from __future__ import annotations

import hmac
import json
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archives.torchserve.key_file import Kind


class Tokens:
    """The keys of one running server. A token expires; a renewal voids the one before at once."""

    def __init__(self, file: Path, lifetime: timedelta) -> None:
        self._file = file
        self._lifetime = lifetime
        self._keys: dict[Kind, str] = {"api": secrets.token_urlsafe(16)}
        self._expiry: dict[Kind, datetime] = {}
        self.renew("management")
        self.renew("inference")

    def renew(self, kind: Kind) -> None:
        """Make a new token for this API; the old one stays where the file cannot be written."""
        keys = self._keys | {kind: secrets.token_urlsafe(16)}
        expiry = self._expiry | {kind: datetime.now(UTC) + self._lifetime}
        said = {"API": {"key": keys["api"]}} | {
            it: {"key": keys[it], "expiration time": expiry[it].isoformat()} for it in expiry
        }
        part = self._file.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(said, file, indent=1)
        part.replace(self._file)
        self._keys, self._expiry = keys, expiry

    def allows(self, kind: Kind, authorization: str) -> bool:
        """Whether a request's header `Authorization` has this API's key, not expired."""
        scheme, _, given = authorization.partition(" ")
        good = hmac.compare_digest(given.encode(), self._keys[kind].encode())
        in_time = kind == "api" or datetime.now(UTC) < self._expiry[kind]
        return scheme == "Bearer" and good and in_time
