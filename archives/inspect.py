"""What an archive holds, and whether it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archives.loader import file_sha256, load_archive, read_members


def inspect_archive(path: Path, *, verify: bool) -> dict[str, Any]:
    """Facts of the archive as plain data; with `verify`, every byte and the goldens are checked.

    Raises:
        ArchiveError: no archive, a damaged one, or (with `verify`) one that must not serve.
    """
    manifest, card = read_members(path)
    facts = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "name": manifest["model"]["modelName"],
        "version": manifest["model"]["modelVersion"],
        "card": card,
        "verified": False,
    }
    if verify:
        with load_archive(path) as archive:
            facts |= {"verified": True, "engine": archive.engine}
    return facts
