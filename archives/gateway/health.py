"""What is wrong with the gateway itself: in its log, in `/health`, and as metrics for Prometheus.

`gateway/metrics.prom` in the state folder is in Prometheus's text format, for the textfile
collector of its node exporter (https://github.com/prometheus/node_exporter).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from archives.gateway.certificate import WARN_BEFORE_S, Pair
from archives.state.files import open_own, write_private
from archives.state.tokens_and_keys import clients, study_key
from sonode.console import UserError
from sonode.files.atomic import FULL

logger = logging.getLogger(__name__)

LOOK_S = 2.0
FREE_BYTES = 1 << 20
"""Free space that the state folder must have: logs are what guards judge by."""
NOT_THE_DISK = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # no fallocate on that file system
FAULTS = ("disk_full", "key_damaged", "clients_damaged", "certificate_expired")


class Health:
    """Looks at the gateway's own files; `faults` are those of FAULTS that hold."""

    def __init__(self, state: Path, pair: Pair | None) -> None:
        self.faults: tuple[str, ...] = ()
        self._state, self._pair = state, pair
        self._look_at = 0.0
        self._warned_on = -1
        self._written = ""

    def look(self) -> None:
        """Look again, where LOOK_S have passed; a fault is logged when it begins."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        found = {
            "disk_full": self._full(),
            "key_damaged": _damage(study_key, self._state),
            "clients_damaged": _damage(clients, self._state),
            "certificate_expired": self._expired(),
        }
        for name, why in found.items():
            if why and name not in self.faults:
                logger.error("%s", why)
            elif not why and name in self.faults:
                logger.error("%s: resolved", name)
        self.faults = tuple(name for name, why in found.items() if why)

    def write_metrics(self, nodes: Mapping[str, bool], seq: int) -> None:
        """Write the metrics where they have changed.

        `nodes` says who is up, `seq` is the journal's applied entry.
        """
        lines = [f'sonode_gateway_fault{{fault="{it}"}} {int(it in self.faults)}' for it in FAULTS]
        lines += [
            f'sonode_gateway_node_up{{node="{name}"}} {int(up)}' for name, up in nodes.items()
        ]
        lines += [f"sonode_gateway_applied_seq {seq}"]
        if self._pair and self._pair.expires:
            lines += [f"sonode_gateway_certificate_expires_seconds {self._pair.expires:.0f}"]
        if (text := "\n".join([*lines, ""])) == self._written:
            return
        path = self._state / "gateway" / "metrics.prom"
        with suppress(OSError):  # a full disk is logged elsewhere
            write_private(self._state, path, text.encode())
            self._written = text

    def _full(self) -> str:
        probe = self._state / "gateway" / "probe"
        try:
            with open_own(self._state, probe) as file:
                os.posix_fallocate(file.fileno(), 0, FREE_BYTES)
        except OSError as error:
            if error.errno in NOT_THE_DISK:
                return ""
            what = "the disk is full"
            if error.errno not in FULL:  # read-only after a fault of the disk, for one
                what = f"cannot be written to ({error.strerror})"
            return (
                f"--state {self._state}: {what}: nothing can be logged or judged, so a new version "
                "gets no traffic until it can"
            )
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
        return ""

    def _expired(self) -> str:
        if self._pair is None or self._pair.expires is None:
            return ""
        left_s = self._pair.expires - time.time()
        if left_s <= 0:
            return "--certificate: has expired: clients refuse it; renew it"
        days = int(left_s // 86400)
        if left_s < WARN_BEFORE_S and days != self._warned_on:
            logger.warning("--certificate: expires in %d days: renew it", days)
            self._warned_on = days
        return ""


def _damage(read: object, state: Path) -> str:
    assert callable(read)
    try:
        read(state)
    except UserError as error:
        return str(error)
    except (OSError, ValueError, AttributeError) as error:
        return f"{state}: a file of its secrets cannot be read ({type(error).__name__})"
    return ""
