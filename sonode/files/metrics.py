"""`metrics.json` and `external.json`: their version, and the one way to read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sonode.console import UserError

METRICS, EXTERNAL = "metrics.json", "external.json"
DEVELOPMENT = "development"  # the cohort of external.json that is not external
FORMAT = 2
"""Of metrics.json and external.json. It rises where a reader of an older file would go wrong; 2 has
each subgroup's variable with its groups and tests."""
_PARTS = {METRICS: ("about", "heads"), EXTERNAL: ("cohorts",)}
"""What tells that a file is what its name says."""


def read_metrics(path: Path, command: str = "sonode evaluate") -> dict[str, Any]:
    """What a file written by `command` holds.

    Raises UserError: it is missing or damaged, holds something else, or is of another version.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = found["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: missing, or damaged; give OUT of `{command}`") from error
    if version != FORMAT:
        raise UserError(
            f"{path}: has format {version}, and this version reads {FORMAT}; run `{command}` again"
        )
    if not all(isinstance(found.get(name), dict) for name in _PARTS[path.name]):
        raise UserError(f"{path}: was not written by sonode; give OUT of `{command}`")
    return found
