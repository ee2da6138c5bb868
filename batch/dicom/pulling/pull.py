"""A pull: what the PACS names -> objects, ledgers, and the manifest in OUT, written last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

from batch.dicom.origins.origin import Origin
from batch.dicom.peers.address import Web, address, check_title
from batch.dicom.peers.answers import NoAnswer
from batch.dicom.peers.identity import Identity
from batch.dicom.pulling import given_boxes, ledger, manifest
from batch.dicom.pulling.settings import Settings
from batch.dicom.pulling.studies import Puller, Study
from batch.storage import objects
from batch.storage.errors import StorageError
from sonode.console import UserError

__all__ = ["Pulled", "Settings", "pull", "pull_from"]


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What a pull did, and what there is now of what the PACS names."""

    studies: int
    pulled: int
    """Images that this pull wrote."""
    by_status: dict[str, int]
    """Objects that the PACS names, as the ledgers have them."""
    refusals: dict[str, int]
    """Objects that were refused, by the reason."""
    lacking: int
    """Objects that the PACS counts in its studies and does not name."""
    stopped: str | None
    """Why the pull ended before its end: the PACS did not answer. Then there is no manifest."""
    manifest: str | None
    """Where it is."""
    rows: int
    """Of the manifest."""
    roi_sources: dict[str, int]
    """Rows by where their RoI is from."""
    without_roi: dict[str, int]
    """Images that are not in the manifest, by the reason."""
    boxes_not_used: dict[str, int]
    """Boxes that are in no row, by the reason."""
    unknown_images: int
    """Images of the user's boxes that the PACS did not name."""
    refused: list[str] = field(repr=False)
    """UIDs of what was refused."""
    table: pa.Table = field(repr=False)
    """The manifest; empty where there is none."""

    def facts(self) -> dict[str, Any]:
        """All but the table and UIDs, as JSON has it."""
        return {it.name: getattr(self, it.name) for it in fields(self) if it.repr}


def pull(settings: Settings, progress: Callable[..., Iterator[Any]]) -> Pulled:
    """Pull what OUT lacks from a PACS; `progress` as `console.progress`.

    Raises UserError: for a setting, the credentials or the boxes; where the PACS gives nothing to
    sonode; where OUT cannot be read or written.
    """
    where = address(settings.source, settings.option, plain=settings.plain)
    title = check_title(settings.title, settings.named("title"))
    identity = Identity.of_environment()
    if isinstance(where, Web):
        from batch.dicom.origins.dicomweb import Service

        if settings.receive is not None:
            raise UserError(
                f"{settings.named('receive')}: a DICOMweb service sends nothing by C-MOVE; omit it"
            )
        return pull_from(lambda: Service(where, identity, settings.option), settings, progress)
    from batch.dicom.origins.dimse import Peer
    from batch.dicom.origins.receiver import Receiver
    from batch.dicom.peers.association import Association

    with ExitStack() as stack:
        receiver = None
        if settings.receive is not None:
            receiver = Receiver(title, settings.receive, identity, plain=settings.plain)
            stack.callback(receiver.close)

        def opened() -> Origin:
            more = {"plain": settings.plain}
            return Peer(Association(where, title, identity, settings.option, **more), receiver)

        return pull_from(opened, settings, progress)


def pull_from(
    opened: Callable[[], Origin], settings: Settings, progress: Callable[..., Iterator[Any]]
) -> Pulled:
    """As `pull`, by the connections that `opened` gives, one for each thread."""
    given = given_boxes.read(settings.boxes, settings.named("boxes")) if settings.boxes else {}
    puller = Puller(settings, opened)
    done: list[tuple[str, Study]] = []
    stopped, table = None, manifest.table([])
    try:
        done.extend(puller.run(progress))
        stopped = next((its.stopped for _, its in done if its.stopped), None)
        rows = [
            manifest.rows_of(study, [it.it.instance for it in its.named], its.entries, given)
            for study, its in done
            if stopped is None
        ]
        if stopped is None:
            table = manifest.write(settings.out, rows)
    except NoAnswer as error:
        stopped, rows = str(error), []
    except StorageError as error:
        raise UserError(f"{settings.out}: {error}") from None
    return _account(settings, done, rows, set(given), stopped, table)


def _account(
    settings: Settings,
    done: list[tuple[str, Study]],
    rows: list[manifest.Rows],
    given: set[str],
    stopped: str | None,
    table: pa.Table,
) -> Pulled:
    statuses = Counter(dict.fromkeys(ledger.STATUSES, 0))
    refusals: Counter[str] = Counter()
    refused: list[str] = []
    for _, its in done:
        for it in its.named:
            if entry := its.entries.get(it.it.instance):
                statuses[entry["status"]] += 1
                if entry["status"] == ledger.REFUSED:
                    refusals[entry["message"]] += 1
                    refused.append(it.it.instance)
                given.discard(it.it.instance)
    counted = manifest.counts(rows)
    return Pulled(
        studies=len(done),
        pulled=sum(its.pulled for _, its in done),
        by_status=dict(statuses),
        refusals=dict(sorted(refusals.items())),
        refused=refused,
        lacking=sum(its.lacking for _, its in done),
        stopped=stopped,
        manifest=None if stopped else objects.join(settings.out, ledger.MANIFEST),
        unknown_images=len(given),
        table=table,
        **counted,
    )
