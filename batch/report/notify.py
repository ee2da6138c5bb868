"""Notifies a command or a webhook how a run ended."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from sonode.console import UserError

_WAIT_S = 30
_WEB = ("http://", "https://")


def check(target: str) -> None:
    """Raises UserError where `target` is a URL of a scheme other than http or https."""
    scheme = re.match(r"[\w.+-]+://", target)
    if scheme and not target.startswith(_WEB):
        raise UserError(
            f"--on-finish {scheme[0]}...: not a webhook; give a URL of http:// or https://, "
            "or a command"
        )


def report_end(target: str, outcome: str, facts: dict[str, Any]) -> None:
    """Hand `outcome` and `facts` on as JSON: POSTed to an http(s) URL, else a command's input.

    `outcome`: "done", "no_rows", "failed_rows", "stopped" or "error". A failure to do so is printed
    to standard error; the exit code of the run stays.
    """
    try:
        _send(target, outcome, facts)
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)


def _send(target: str, outcome: str, facts: dict[str, Any]) -> None:
    """Raises UserError, without what it was about: a URL may hold a secret."""
    body = json.dumps({"outcome": outcome, **facts}).encode()
    if target.startswith(_WEB):
        import httpx

        from batch.storage.s3_client import is_loopback

        try:
            answer = httpx.post(
                target,
                content=body,
                headers={"Content-Type": "application/json"},
                timeout=_WAIT_S,
                # A proxy of the environment leads to no port of this machine.
                trust_env=not is_loopback(target),
            )
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            kind = getattr(getattr(error, "response", None), "status_code", type(error).__name__)
            raise UserError(
                f"--on-finish: the webhook was not notified ({kind}); check the URL and the network"
            ) from None
        except (ValueError, ImportError):  # as httpx says it: a scheme unknown, or SOCKS
            raise UserError(
                "--on-finish: the webhook was not notified: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY "
                "is not an http:// address"
            ) from None
        return
    try:
        code = subprocess.run(target, shell=True, input=body, timeout=600, check=False).returncode
    except subprocess.TimeoutExpired:
        raise UserError(
            "--on-finish: the command did not end within 600 s; run it in the background"
        ) from None
    if code:
        raise UserError(f"--on-finish: the command ended with exit code {code}")
