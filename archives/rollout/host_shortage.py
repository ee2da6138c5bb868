"""What a machine lacks where an archive does not work on it: disk space, memory, descriptors.

`verify` has checked the archive on one machine, so a shortage on another is not the archive's
fault. TorchServe's answer shows only that it could not unpack an archive; its logs show why a
worker did not start.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import httpx

SHORT_OF = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE),
    *(errno.ENFILE, errno.EADDRINUSE),
)
LACK = re.compile(
    "|".join(
        [
            *map(re.escape, map(os.strerror, SHORT_OF)),
            # Python, PyTorch (CPU and CUDA) and Java
            *("MemoryError", "can't allocate memory", "out of memory", "OutOfMemoryError"),
            # TorchServe, after startupTimeout
            *("worker did not respond in given time", "worker startup time out"),
        ]
    ),
    re.IGNORECASE,
)
UNPACKS_NOT = "Failed to save model"
"""TorchServe's message for any disk error while it unpacks; a bad archive has another."""
LOGS = ("model_log.log", "ts_log.log")
READ_BYTES = 1_000_000  # of the end of a log


def lack(text: str) -> str:
    """What the machine lacked, as a text names it; empty: nothing."""
    found = LACK.search(text)
    return found[0] if found else ""


def refused_for(answer: httpx.Response) -> str:
    """What the machine lacked where TorchServe has refused to register; empty: unknown."""
    if UNPACKS_NOT in answer.text:
        return "it could not unpack the archive; its disk may be full"
    if answer.status_code == httpx.codes.INSUFFICIENT_STORAGE:
        return "too little memory"
    return ""


class NodeLogs:
    """What TorchServe and its workers have written to the logs of a run folder from now on."""

    def __init__(self, run_dir: Path) -> None:
        self._began = {path: _size(path) for path in (run_dir / "logs" / name for name in LOGS)}

    def lack(self) -> str:
        """What the machine lacked, as it stands there; empty: nothing, or they cannot be read."""
        return next(filter(None, (lack(self._since(path)) for path in self._began)), "")

    def _since(self, path: Path) -> str:
        size, began = _size(path), self._began[path]
        if size < began:  # the log was rotated
            began = 0
        try:
            with path.open("rb") as file:
                file.seek(max(began, size - READ_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
