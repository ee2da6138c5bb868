"""Joins a Ray cluster, or starts one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout

from sonode.console import UserError

_ANSWERS_WITHIN_S = 5.0


@contextmanager
def joined(address: str | None) -> Iterator[list[Mapping[str, float]]]:
    """Join the cluster at `address`, host:port, and give the resources of its nodes.

    Without an address, that of RAY_ADDRESS; without that, one is started on this machine for the
    length of the block, on loopback and with a token of its own. Raises UserError.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    # Ray reads its environment when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address:
        _check_address(address)
        # What answers there but is not a cluster is tried once (40 s), not for 15 minutes.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    else:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else one is written to ~/.ray
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # no cluster of machines: loopback
    import ray

    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray has no class for what goes wrong here
        why = str(error).strip().partition("\n")[0]
        place = address or "on this machine"
        raise UserError(f"Ray cluster {place}: cannot connect: {why}") from None
    finally:
        signal.signal(signal.SIGTERM, terminate)  # Ray takes it
    with redirect_stdout(sys.stderr):  # Ray prints there which workers died
        try:
            yield [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Raise UserError where nobody answers: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        raise UserError(f"Ray cluster {address}: give host:port as `ray start --head` prints it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"Ray cluster {address}: no answer ({error}); check --address and the network"
        ) from None
