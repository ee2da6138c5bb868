"""What the server itself answers where it refuses a request."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - reads as what it is
    """An answer of the server's own, in TorchServe's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message


def unavailable(message: str) -> Refused:
    """The 503 of a version that cannot take a request now."""
    return Refused(503, "ServiceUnavailableException", message)
