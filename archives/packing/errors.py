"""What is wrong with an archive, for the person who gave it."""

from __future__ import annotations

from sonode.console import UserError


class ArchiveError(UserError):
    """An archive that cannot be built, read or trusted."""
