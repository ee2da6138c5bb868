"""The error of an archive that a user gave."""

from __future__ import annotations

from sonode.console import UserError


class ArchiveError(UserError):
    """An archive that cannot be built, read or trusted."""
