"""The commands of this room; heavy imports stay inside the functions."""

from __future__ import annotations

import typer


def mount(app: typer.Typer) -> None:
    """Add this room's commands to `app`."""
