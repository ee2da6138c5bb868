"""Which boxes are rows of the manifest, worked out by hand."""

from typing import Any

import pytest

from batch.dicom.ledger_file import Entry
from batch.dicom.pulling import ledger, manifest
from batch.dicom.pulling.given_boxes import Given, GivenBox

BOX = (1, 2, 5, 6)


def image(frames: int = 1) -> Entry:
    """One of 8 x 6 pixels."""
    facts: dict[str, Any] = {"etag": "e", "frames": frames, "width": 8, "height": 6}
    return ledger.new("1.7", "1.5", ledger.PULLED, **facts)


def report(uid: str, *boxes: tuple[int | None, tuple[int, int, int, int]], **more: Any) -> Any:
    drawn = [
        {"instance": "1.7", "frame": frame}
        | dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))
        for frame, box in boxes
    ]
    return ledger.new(uid, "1.6", ledger.READ, **{"source": "sr", "boxes": drawn, **more})


def rows(*entries: Entry, given: Given | None = None) -> manifest.Rows:
    by_uid = {it["instance"]: it for it in entries}
    return manifest.rows_of("1", list(by_uid), by_uid, given or {})


def asked(found: manifest.Rows) -> list[tuple[Any, ...]]:
    columns = ("frame", "roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max", "roi_source")
    return [tuple(row[name] for name in columns) for row in found.with_roi.to_pylist()]


def reasons(found: manifest.Rows) -> list[str]:
    its: list[str] = found.without_roi["reason"].to_pylist()
    return its


def test_each_box_of_an_image_is_a_row_once() -> None:
    other = (0, 0, 8, 6)
    found = rows(
        image(), report("1.8", (None, BOX), (0, other)), report("1.9", (0, BOX), source="pr")
    )
    assert asked(found) == [(None, *BOX, "sr"), (None, *other, "sr")]
    assert (reasons(found), found.not_used) == ([], {})


def test_a_box_of_a_loop_is_on_the_frame_that_it_names() -> None:
    found = rows(image(4), report("1.8", (0, BOX), (3, BOX), (3, BOX)))
    assert asked(found) == [(0, *BOX, "sr"), (3, *BOX, "sr")]


@pytest.mark.parametrize(
    ("frames", "frame", "box", "reason"),
    [
        (4, None, BOX, "frame_not_named"),
        (4, 4, BOX, "frame_outside_loop"),
        (1, 1, BOX, "frame_outside_loop"),
        (1, None, (1, 2, 9, 6), "box_outside_image"),
        (1, None, (1, 2, 8, 7), "box_outside_image"),
        (1, None, (-1, 2, 5, 6), "box_outside_image"),
    ],
)
def test_a_box_that_is_no_roi_is_counted_with_its_reason(
    frames: int, frame: int | None, box: tuple[int, int, int, int], reason: str
) -> None:
    alone = rows(image(frames), report("1.8", (frame, box)))
    assert (asked(alone), reasons(alone), alone.not_used) == ([], [reason], {reason: 1})
    beside = rows(image(frames), report("1.8", (frame, box), (0, BOX)))
    assert [row[1:5] for row in asked(beside)] == [BOX]
    assert (reasons(beside), beside.not_used) == ([], {reason: 1})


def test_the_users_boxes_take_the_place_of_those_that_are_drawn() -> None:
    mine = (0, 0, 3, 3)
    given = {"1.7": [GivenBox(None, mine, "table", None), GivenBox(None, mine, "table", None)]}
    assert asked(rows(image(), report("1.8", (None, BOX)), given=given)) == [(None, *mine, "table")]
    of_another = {"1.7": [GivenBox(None, mine, "labelimg", (16, 12))]}
    found = rows(image(), report("1.8", (None, BOX)), given=of_another)
    assert (asked(found), reasons(found)) == ([], ["drawn_on_another_size"])


def test_an_image_that_was_refused_is_in_neither_table() -> None:
    refused = ledger.new("1.7", "1.5", ledger.REFUSED, message="HTTP 404")
    found = rows(refused, report("1.8", (None, BOX)))
    assert (asked(found), reasons(found)) == ([], [])
    assert reasons(rows(image())) == ["no_box"]
