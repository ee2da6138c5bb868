"""A pull: what the PACS names -> objects, ledgers, and the manifest in OUT, written last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from batch.dicom.connections import Identity, NoAnswer, Web, address, check_title
from batch.dicom.pulling import given_boxes, ledger, manifest
from batch.dicom.pulling.origin import Origin
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


def pull(settings: Settings, progress: Callable[..., Iterator[Any]]) -> Pulled:
    """Pull what OUT lacks from a PACS; `progress` as `console.progress`.

    Raises:
        UserError: for a setting, the credentials or the boxes; where the PACS gives nothing to
            sonode; where OUT cannot be read or written.
    """
    where = address(settings.source, "--from", plain=settings.plain)
    title = check_title(settings.title, "--title")
    identity = Identity.of_environment()

    def opened() -> Origin:
        if isinstance(where, Web):
            from batch.dicom.pulling.web import Service

            return Service(where, identity)
        from batch.dicom.pulling.node import Peer

        return Peer(where, title, identity, plain=settings.plain)

    return pull_from(opened, settings, progress)


def pull_from(
    opened: Callable[[], Origin], settings: Settings, progress: Callable[..., Iterator[Any]]
) -> Pulled:
    """As `pull`, by the connections that `opened` gives, one for each thread."""
    given = given_boxes.read(settings.boxes) if settings.boxes else {}
    puller = Puller(settings, opened)
    done: list[tuple[str, Study]] = []
    stopped = None
    try:
        done.extend(puller.run(progress))
        stopped = next((its.stopped for _, its in done if its.stopped), None)
        rows = [
            manifest.rows_of(study, [it.it.instance for it in its.named], its.entries, given)
            for study, its in done
            if stopped is None
        ]
        if stopped is None:
            manifest.write(settings.out, rows)
    except NoAnswer as error:
        stopped, rows = str(error), []
    except StorageError as error:
        raise UserError(f"{settings.out}: {error}") from None
    return _account(settings, done, rows, set(given), stopped)


def _account(
    settings: Settings,
    done: list[tuple[str, Study]],
    rows: list[manifest.Rows],
    given: set[str],
    stopped: str | None,
) -> Pulled:
    statuses = Counter(dict.fromkeys(ledger.STATUSES, 0))
    refusals: Counter[str] = Counter()
    for _, its in done:
        for it in its.named:
            if entry := its.entries.get(it.it.instance):
                statuses[entry["status"]] += 1
                if entry["status"] == ledger.REFUSED:
                    refusals[entry["message"]] += 1
                given.discard(it.it.instance)
    counted = manifest.counts(rows)
    return Pulled(
        studies=len(done),
        pulled=sum(its.pulled for _, its in done),
        by_status=dict(statuses),
        refusals=dict(sorted(refusals.items())),
        stopped=stopped,
        manifest=None if stopped else objects.join(settings.out, ledger.MANIFEST),
        unknown_images=len(given),
        **counted,
    )
