"""The commands of the DICOM objects; heavy imports stay inside the functions."""

from __future__ import annotations

import dataclasses
import json
import sys

import typer

from sonode import console
from sonode.command_group import CommandGroup
from sonode.console import say

TRY_AGAIN = 75  # EX_TEMPFAIL

dicom = typer.Typer(cls=CommandGroup, help="The DICOM objects of a batch, and a PACS.")


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
    plain: bool = typer.Option(
        False,
        "--plain",
        help="Without TLS: DIMSE, and http:// beyond this machine, in a network of your own.",
    ),
    title: str = typer.Option("SONODE", help="The AE title that sonode calls itself by DIMSE."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as one JSON line."),
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

    from batch.dicom import push as pushing
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
    if done.stopped is not None:
        print(
            f"the PACS does not answer as it should ({done.stopped}); what it took is recorded; "
            "re-run the same command to send the rest",
            file=sys.stderr,
        )
        raise typer.Exit(TRY_AGAIN)
    if done.by_status[pushing.IMAGE_UNKNOWN]:
        print(
            "the PACS does not have the images of some objects, which were not sent; give the PACS "
            "that they came from, or --unknown-images",
            file=sys.stderr,
        )
    if done.by_status[pushing.REFUSED] or done.by_status[pushing.IMAGE_UNKNOWN]:
        raise typer.Exit(1)
