"""What an archive holds, and whether it can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from archives.packing import evidence, model_card
from archives.packing.loader import file_sha256, load_archive, read_member, read_members


def inspect_archive(path: Path, *, verify: bool, engine: str | None = None) -> dict[str, Any]:
    """Facts of the archive as plain data; with `verify`, every byte and golden example is checked.

    They are scored under `engine` (see `archives.packing.loader.load_archive`).

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
        "model_card": read_member(path, model_card.FILE).decode(),
        "tested_on": json.loads(read_member(path, evidence.FILE)),
        "verified": False,
    }
    if verify:
        settings = {"engine": engine} if engine else {}
        with load_archive(path, settings) as archive:
            facts |= {"verified": True, "engine": archive.engine}
    return facts
