"""The command `sonode dicom night`; heavy imports stay inside the function."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from sonode.console import counted, say


def night(
    settings: Path = typer.Argument(help="A YAML file: pacs, archive, folder and more."),
    *,
    day: datetime | None = typer.Option(
        None, "--date", formats=["%Y-%m-%d"], help="The night's date. Default: today."
    ),
    folder: str | None = typer.Option(
        None, help="Another folder than that of the settings; an empty one repeats the days."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the report as one JSON line."),
) -> None:
    """Pull the last days' images from a PACS, score them, and push the results back.

    Re-run to do what is missing. Credentials come from the environment, as of `sonode dicom push`.
    Exit code 1: images or objects failed or were refused; 75: the PACS does not answer.
    """
    import dicomweb_client  # noqa: F401 - named where the extra is missing
    import highdicom  # noqa: F401
    import pynetdicom  # noqa: F401

    from batch.dicom.pushing import ledger
    from batch.night import night as nights
    from batch.night.settings import read
    from batch.storage import uris

    asked = read(settings)
    if folder is not None:
        asked = asked.model_copy(update={"folder": uris.argument(folder)})
    report = nights.run(asked, day.date() if day else datetime.now().astimezone().date())
    if as_json:
        say(json.dumps(report))
    else:
        _show(report)
        if standing := sum(report.get("standing", {}).values()):
            words = [f"{asked.folder}/results", "--to", asked.to or asked.pacs]
            words += [*(["--plain"] * asked.plain), "--title", asked.title]
            say(
                f"{counted(standing, 'object')} of earlier nights not at the PACS; this shows why "
                f"and tries again: sonode dicom push {shlex.join(words)}"
            )
    if code := report["exit_code"]:
        print(f"re-run the same command to do what is missing: {report['why']}", file=sys.stderr)
        for status, what in ledger.REMEDIES.items():
            if count := report.get("push", {}).get("by_status", {}).get(status):
                print(f"{counted(count, 'object')} not at the PACS: {what}", file=sys.stderr)
        raise typer.Exit(code)


def _show(report: dict[str, Any]) -> None:
    say(f"night of {report['date']}")
    for name, counts in (
        ("images", report["pull"].get("by_status")),
        ("images without a RoI", report["pull"].get("without_roi")),
        ("boxes not used", report["pull"].get("boxes_not_used")),
        ("scores", report.get("score", {}).get("by_status")),
        ("objects of images", report.get("dicom", {}).get("by_status")),
        ("objects at the PACS", report.get("push", {}).get("by_status")),
    ):
        for status, count in (counts or {}).items():
            say(f"  {name + ', ' + status:<40} {count}")
    if "score" not in report and "push" in report:  # else the pull has not come to its end
        say("  no image is new: nothing to score")
    for other, its in report.get("earlier", {}).items():
        images = counted(its["score"]["rows"], "image")
        say(f"  scored of the night of {other}, which was cut short: {images}")
    for name, took in report["stages"].items():
        say(f"  {name + ':':<12} {took['seconds']:8.1f} s ({100 * took['share']:.0f} %)")
