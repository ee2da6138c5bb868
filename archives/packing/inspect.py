"""What an archive holds, and whether it can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from archives.packing import evidence, model_card
from archives.packing.loader import load_archive
from archives.packing.members import file_sha256, read_member, read_members
from sonode.console import counted


def inspect_archive(path: Path, *, verify: bool, engine: str | None = None) -> dict[str, Any]:
    """Facts of the archive as plain data; with `verify`, every byte and golden example is checked.

    They are scored under `engine` (see `archives.packing.loader.load_archive`).

    Raises ArchiveError: no archive, a damaged one, or (with `verify`) one that must not serve.
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


def as_text(facts: dict[str, Any]) -> str:
    """The facts as lines for a terminal."""
    card = facts["card"]
    training = card["training"]
    members = card["members"]
    several = f"{members} x " if members > 1 else ""
    names = ", ".join(head["name"] for head in card["heads"])
    lines = [
        f"{facts['file']}: {facts['name']} {facts['version']}, {facts['bytes']} bytes",
        f"sha256      {facts['sha256']}",
        f"network     {several}{card['architecture']}, heads {names}",
    ]
    for head in card["heads"]:
        counts = training.get("labels", {}).get(head["name"], {})
        lines.append(
            f"  {head['name']}: "
            + (f"probability given {head['given']}, " if head.get("given") else "")
            + f"threshold {head['threshold']:g}, temperature {head['temperature']:.3g}, "
            "trained on images of "
            + (", ".join(f"{label} {count}" for label, count in counts.items()) or "not stated")
        )
        if (sets := head.get("label_sets") or {}).get("least") is not None:
            patients = ", ".join(f"{label} {count}" for label, count in sets["patients"].items())
            lines.append(
                f"    uncertain results at level {sets['level']:g}, from patients: {patients}"
            )
    if (limit := card.get("out_of_distribution") or {}).get("limit") is not None:
        alarms, patients = limit["false_alarms"], limit["patients"]
        flagged = f"false alarms at most {alarms:g}, from {counted(patients, 'patient')}"
        lines.append(f"unlike      images out of distribution are flagged, {flagged}")
    shown, cohort = card["preprocessing"], training.get("cohort", {})
    kind = "SYNTHETIC cohort, not for patients" if cohort.get("synthetic") else "cohort"
    verified = (
        f"every byte, golden examples with {facts['engine']}"
        if facts["verified"]
        else "no (give --verify)"
    )
    lines += [
        f"input       {shown['size']} pixels, context {shown['context']}",
        f"trained on  {kind} {cohort.get('name', 'not stated')}, sha256 {cohort.get('sha256')}",
        f"tested on   {evidence.as_text(facts['tested_on'])}",
        f"verified    {verified}",
        "model card  intended use, limits and figures: give --model-card",
    ]
    return "\n".join(lines)
