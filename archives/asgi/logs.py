"""The log files of a server: as many, as large and as silent about clients as TorchServe's here."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 100_000_000
KEPT = 5
LINE = "%(asctime)s [%(levelname)-5s] %(name)s - %(message)s"
# Logger -> file and form.
FILES = {
    "sonode.requests": ("request_log.log", "%(message)s"),
    "sonode.access": ("access_log.log", "%(asctime)s %(message)s"),
    "sonode.workers": ("model_log.log", "%(asctime)s %(message)s"),
    "sonode.server": ("server_log.log", LINE),
    "uvicorn": ("server_log.log", LINE),
    "asyncio": ("server_log.log", LINE),
    "opentelemetry": ("server_log.log", LINE),
}


class LogFile(RotatingFileHandler):
    """A file that is rolled. A disk that is full costs lines, and is told once; nothing stops."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say it on the console, where its first line goes."""
        if not self._told:
            self._told = True
            fault = sys.exc_info()[1]
            reason = fault.strerror if isinstance(fault, OSError) else type(fault).__name__
            print(f"{Path(self.baseFilename).name} cannot be written: {reason}", file=sys.stderr)


def open_logs(folder: Path) -> None:
    """Write the logs of this process into the folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handlers: dict[str, LogFile] = {}
    for name, (file, form) in FILES.items():
        if file not in handlers:
            handlers[file] = LogFile(folder / file, maxBytes=MAX_BYTES, backupCount=KEPT)
            handlers[file].setFormatter(logging.Formatter(form))
        logger = logging.getLogger(name)
        logger.handlers = [handlers[file]]
        logger.setLevel(logging.INFO if name.startswith(("sonode", "uvicorn")) else logging.WARNING)
        logger.propagate = False
