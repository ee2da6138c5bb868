"""The objects of OUT -> the PACS that has their images, with a ledger of what became of each.

A ledger lies beside each record (`beside_results`), one for each PACS. An object is `accepted`: the
PACS took it, and names it when it is asked for it; `unconfirmed`: it took it, or said that it had
it, and does not name it; `present`: it had it already; `refused`, with its status; `image_unknown`:
it does not have the image that was scored; or `patient_changed`: it has the study under another
patient than the object's. Nothing of the last two is sent.

An object that is not at the PACS by the ledger is asked for before it is sent: a push that was
killed behind an object and before its ledger finds it `present`. What was `unconfirmed` is sent
once more at most. Else only that is sent twice which was on its way when a push was killed or an
answer got lost: it is the same object, of the same UID and bytes. The ledger has no name and no
UID.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from batch import layout
from batch.dicom.making.objects import KINDS
from batch.dicom.peers.address import Web, address, check_title
from batch.dicom.peers.answers import NoAnswer
from batch.dicom.peers.identity import Identity
from batch.dicom.pushing import ledger
from batch.dicom.pushing.destination import Destination
from batch.dicom.pushing.sending import Sender
from batch.results import schema as results
from batch.storage import objects
from batch.storage.errors import as_user_error
from sonode.console import UserError


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What the ledgers of a PACS say after a push, of the objects that it looked at."""

    by_status: dict[str, int]
    sent: int
    """Objects that this push sent."""
    not_sent: dict[str, int]
    """Objects that the PACS does not have, by the date of their results."""
    stopped: str | None
    """Why it ended before its end: the PACS did not answer."""


def destination(
    to: str, *, option: str, title: str, plain: bool, unknown_images: bool
) -> Destination:
    """A connection to the PACS at an address that an option gave.

    Raises UserError for the address or the credentials.
    """
    where, identity = address(to, option, plain=plain), Identity.of_environment()
    if isinstance(where, Web):
        from batch.dicom.pushing.stow import Service

        return Service(where, identity, option)
    from batch.dicom.peers.association import Association
    from batch.dicom.pushing.cstore import Peer

    called = Association(where, check_title(title, option), identity, option, plain=plain)
    return Peer(called, blind=unknown_images)


def push_to(
    out: str,
    to: str,
    *,
    title: str,
    plain: bool,
    unknown_images: bool,
    progress: Callable[..., Iterator[Any]],
    option: str = "--to",
    dates: Collection[str] | None = None,
) -> Pushed:
    """Send what the PACS at an address lacks of the objects in OUT.

    Args:
        out: results with DICOM objects.
        to: as `address` reads it.
        title: the AE title to call as, for DIMSE.
        plain: without TLS.
        unknown_images: send also where the PACS does not have the image.
        progress: as `console.progress`.
        option: that gave the address.
        dates: of the results to look at; None: all.

    Raises UserError: for the address or the credentials, where the PACS takes nothing from sonode,
    or where OUT cannot be read or written, or has no objects.
    """
    pacs = destination(to, option=option, title=title, plain=plain, unknown_images=unknown_images)
    with closing(pacs):
        return push(out, to, pacs, unknown_images=unknown_images, progress=progress, dates=dates)


def push(
    out: str,
    to: str,
    pacs: Destination,
    *,
    unknown_images: bool,
    progress: Callable[..., Iterator[Any]],
    dates: Collection[str] | None = None,
) -> Pushed:
    """As `push_to`, by a connection; `to` names the ledgers."""
    statuses = Counter(dict.fromkeys(ledger.STATUSES, 0))
    not_sent: Counter[str] = Counter()
    sender = Sender(out, to, pacs, unknown_images=unknown_images)
    stopped = None
    try:
        with as_user_error(out):
            wanted = [None] if dates is None else sorted(dates)
            records = [uri for it in wanted for uri in ledger.records(out, it)]
            if not records and dates is None:
                raise UserError(f"{out}: no DICOM objects; make them by `sonode score ... --dicom`")
            rows = {uri: _rows(uri) for uri in records}
            total = sum(map(len, rows.values()))
            each = ((uri, it) for uri, its in rows.items() for it in sender.of_record(uri, its))
            for uri, entry in progress(each, total=total * len(KINDS), what="objects"):
                statuses[entry["status"]] += 1
                if not ledger.is_done(entry):
                    not_sent[layout.date_of(uri)] += 1
            for uri, entry in sender.settle():
                statuses.update({entry["status"]: 1, ledger.UNCONFIRMED: -1})
                not_sent[layout.date_of(uri)] -= 1
    except NoAnswer as error:
        stopped = str(error)
    return Pushed(
        by_status=dict(statuses), not_sent=dict(+not_sent), sent=sender.sent, stopped=stopped
    )


def _rows(record_uri: str) -> list[dict[str, str]]:
    """The names of the objects of each row that has them, by kind."""
    rows = results.parquet(objects.read(record_uri).data).read(columns=[*KINDS]).to_pylist()
    return [row for row in rows if row["sr"] is not None]
