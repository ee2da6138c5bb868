"""The gateway's log files: their names, and how a large one is moved aside."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

LOGS = ("requests.jsonl", "attempts.jsonl", "error.log")
"""What nginx writes to, and opens again at a signal."""
LOG_BYTES = 100_000_000
LOGS_KEPT = 20  # of each log, besides the one that is written


def missing(folder: Path) -> bool:
    """Whether a log has no file: it was moved, here or by somebody else."""
    return not all((folder / name).exists() for name in LOGS)


def move(folder: Path, limit: int, kept: int) -> list[Path]:
    """Move each log beyond `limit` bytes to NAME-TIME.SUFFIX, of which the latest `kept` stay.

    nginx writes to the moved file until it opens a new one.
    """
    moved = []
    for path in (folder / name for name in LOGS):
        if path.exists() and path.stat().st_size > limit:
            now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            moved.append(path.rename(path.with_stem(f"{path.stem}-{now}")))
            for old in sorted(folder.glob(f"{path.stem}-*{path.suffix}"))[:-kept]:
                old.unlink(missing_ok=True)
    return moved
