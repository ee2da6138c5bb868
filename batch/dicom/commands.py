"""The commands of the DICOM objects; heavy imports stay inside the functions."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import datetime

import typer

from sonode import console
from sonode.command_group import CommandGroup
from sonode.console import TRY_AGAIN, counted, say

PLAIN = typer.Option(
    False,
    "--plain",
    help="Without TLS: DIMSE, and http:// beyond this machine, in a network of your own.",
)
TITLE = typer.Option("SONODE", help="The AE title that sonode calls itself by DIMSE.")
AS_JSON = typer.Option(False, "--json", help="Print the outcome as one JSON line.")

dicom = typer.Typer(cls=CommandGroup, help="Exchange images and results with a PACS.")


@dicom.command()
def push(
    out: str = typer.Argument(help="Results of `sonode score --dicom`; path or s3:// URI."),
    *,
    to: str = typer.Option(
        help="The PACS: the URL of its DICOMweb service, or AETITLE@HOST:PORT for C-STORE."
    ),
    unknown_images: bool = typer.Option(
        False, "--unknown-images", help="Send also where the PACS does not have the scored image."
    ),
    plain: bool = PLAIN,
    title: str = TITLE,
    as_json: bool = AS_JSON,
) -> None:
    """Send the objects that a PACS lacks to it, by STOW-RS or C-STORE; re-run to send the rest.

    Credentials come from the environment: SONODE_DICOM_TOKEN, or SONODE_DICOM_USER and
    SONODE_DICOM_PASSWORD, or the files that SONODE_DICOM_TOKEN_FILE and SONODE_DICOM_PASSWORD_FILE
    name; certificates from the files that SONODE_DICOM_CA, SONODE_DICOM_CERT and SONODE_DICOM_KEY
    name. Exit code 1: objects were refused or not sent; 75: no answer.
    """
    import dicomweb_client  # noqa: F401 - named where the extra is missing
    import highdicom  # noqa: F401
    import pynetdicom  # noqa: F401

    from batch.dicom.pushing import ledger
    from batch.dicom.pushing import push as pushing
    from batch.storage import uris

    done = pushing.push_to(
        uris.argument(out),
        to,
        title=title,
        plain=plain,
        unknown_images=unknown_images,
        progress=console.progress,
    )
    if as_json:
        say(json.dumps(dataclasses.asdict(done)))
    else:
        say(f"objects sent now: {done.sent}")
        for status, count in done.by_status.items():
            say(f"  {status:<24} {count}")
        for date, count in done.not_sent.items():
            say(f"not at the PACS, of the results of {date}: {count}")
    if done.stopped is not None:
        print(
            f"the PACS does not answer as it should ({done.stopped}); what it took is recorded; "
            "re-run the same command to send the rest",
            file=sys.stderr,
        )
        raise typer.Exit(TRY_AGAIN)
    for status, what in ledger.REMEDIES.items():
        if count := done.by_status[status]:
            print(f"{counted(count, 'object')} not at the PACS: {what}", file=sys.stderr)
    if done.not_sent:
        raise typer.Exit(1)


@dicom.command()
def pull(
    out: str = typer.Argument(help="Folder for images and manifest; path or s3:// URI."),
    *,
    source: str = typer.Option(
        ..., "--from", help="The PACS: URL of its DICOMweb service, or AETITLE@HOST:PORT for DIMSE."
    ),
    since: datetime = typer.Option(formats=["%Y-%m-%d"], help="The first day of the studies."),
    modality: str = typer.Option("US", help="Modality of the images."),
    boxes: str | None = typer.Option(
        None, help="RoIs: a CSV or Parquet table, or a folder of LabelImg's XML files."
    ),
    connections: int = typer.Option(2, help="Connections to the PACS at once, 1 to 16."),
    receive: int | None = typer.Option(
        None,
        metavar="PORT",
        help="By C-MOVE, which the PACS sends to this port of this machine; without: by C-GET.",
    ),
    plain: bool = PLAIN,
    title: str = TITLE,
    as_json: bool = AS_JSON,
) -> None:
    """Pull the images that OUT lacks from a PACS, and write a manifest for `sonode score`.

    RoIs are those that an SR or a presentation state of the study draws, or --boxes. Credentials as
    `sonode dicom push` has them. Exit code 1: the PACS refused objects; 75: no answer. Re-run for
    the rest.
    """
    import dicomweb_client  # noqa: F401 - named where the extra is missing
    import pynetdicom  # noqa: F401

    from batch.dicom.pulling import pull as pulling
    from batch.storage import uris

    settings = pulling.Settings(
        source=source,
        out=uris.argument(out),
        since=since.date(),
        modality=modality,
        boxes=None if boxes is None else uris.argument(boxes),
        connections=connections,
        receive=receive,
        title=title,
        plain=plain,
    )
    done = pulling.pull(settings, console.progress)
    if as_json:
        say(json.dumps(done.facts()))
    else:
        say(f"studies: {done.studies}, images pulled now: {done.pulled}")
        for status, count in done.by_status.items():
            say(f"  {status:<24} {count}")
        if done.manifest is not None:
            say(f"{done.manifest}: {counted(done.rows, 'row')}")
        for title_, counts in (
            ("RoI from", done.roi_sources),
            ("without RoI:", done.without_roi),
            ("boxes not used:", done.boxes_not_used),
        ):
            for name, count in counts.items():
                say(f"  {f'{title_} {name}':<40} {count}")
        if done.unknown_images:
            say(f"  {'boxes of images not met':<40} {done.unknown_images}")
    for reason, count in done.refusals.items():
        refused = counted(count, "object")
        print(f"the PACS refused {refused} ({reason}); re-run to ask again", file=sys.stderr)
    if done.stopped is not None:
        print(
            f"the PACS does not answer as it should ({done.stopped}); what it gave is kept, and "
            "the manifest is written when all is there; re-run the same command for the rest",
            file=sys.stderr,
        )
        raise typer.Exit(TRY_AGAIN)
    if done.lacking:
        print(
            f"the PACS counts {done.lacking} objects or series more than it names; raise its limit "
            "of answers (Orthanc: LimitFindInstances, LimitFindResults), and re-run",
            file=sys.stderr,
        )
    if done.refusals or done.lacking:
        raise typer.Exit(1)
