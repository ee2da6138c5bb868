"""The page while an answer is under way: what comes late or is pressed twice says nothing wrong."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sonode.reader.judgements.record import Record
from sonode.reader.results import Results
from tests.conftest import encode
from tests.handlers import dicoms
from tests.sonode.reader.browsing import (
    HEIGHT,
    SPECKLE,
    WIDTH,
    Held,
    drag,
    fields,
    looking,
    scored,
)
from tests.sonode.reader.conftest import MadeUp, serving
from tests.sonode.reader.test_results import URIS, run

SMALLER = encode(np.random.default_rng(4).integers(0, 256, (150, 160), dtype=np.uint8))
WHITE = encode(np.full((HEIGHT, WIDTH), 255, np.uint8))


def choose(page: Any, image: bytes) -> None:
    page.set_input_files("#file", {"name": "x", "mimeType": "image/png", "buffer": image})


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def middle(page: Any) -> list[int]:
    """The colour that the browser shows in the middle of the image's place."""
    shown = np.asarray(Image.open(io.BytesIO(page.locator("figure svg").first.screenshot())))
    return [int(it) for it in shown[shown.shape[0] // 2, shown.shape[1] // 2, :3]]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    for name, image in zip(URIS, (SPECKLE, SMALLER, WHITE), strict=False):
        (tmp_path / name).write_bytes(image)
    return Results([run(tmp_path, "1.0", 0.0, 3, URIS)], str(tmp_path))


def test_of_two_files_the_last_one_chosen_is_shown(browser: Any) -> None:
    with serving(MadeUp()) as server, looking(browser, server, None) as page:
        held = Held(page, "**/images")
        choose(page, SPECKLE)
        held.wait_for(1)
        choose(page, SMALLER)
        held.wait_for(2)
        held.let_go(1)
        page.locator("#said", has_text="160 x 150 pixels").wait_for()
        held.let_go(0)
        drag(page, (10, 10), (60, 60))
        page.locator(".score").wait_for()
        assert "160 x 150 pixels" in page.locator("#said").inner_text()


@pytest.mark.slow
def test_a_file_chosen_after_a_row_was_opened_is_shown(browser: Any, results: Results) -> None:
    with serving(MadeUp(), results=results) as server, looking(browser, server, None) as page:
        held = Held(page, "**/rows/0")
        page.click("button[aria-label='Open row 1']")
        held.wait_for(1)
        choose(page, SMALLER)
        page.locator("#said", has_text="160 x 150 pixels").wait_for()
        held.let_go(0)
        drag(page, (10, 10), (60, 60))
        page.locator(".score").wait_for()
        assert "160 x 150 pixels" in page.locator("#said").inner_text()
        assert page.locator("#table tr[aria-current]").count() == 0  # no row is on the page
        page.click("#next")
        page.locator("#counted", has_text="4 rows, 2 is open").wait_for()


def test_no_image_is_judged_while_the_next_one_is_under_way(
    browser: Any, results: Results, tmp_path: Path
) -> None:
    record = Record(tmp_path / "reading.jsonl")
    with (
        serving(MadeUp(), results=results, record=record) as server,
        looking(browser, server, None) as page,
    ):
        page.click("button[aria-label='Open row 1']")
        scored(page, "1, 2, 30, 40")
        page.fill("#note", "of the first row")
        held = Held(page, "**/rows/1")
        page.click("#next")
        held.wait_for(1)
        assert page.locator("#table tr[aria-current]").inner_text().startswith("2")
        assert page.locator(".score").count() == 0
        assert "Opening." in page.locator(".result").inner_text()
        assert page.locator("#judge").is_hidden()
        assert page.locator("image.frame").get_attribute("href") == ""
        held.let_go(0)
        scored(page, "1, 2, 30, 40")
        assert page.input_value("#note") == ""


def test_an_image_that_does_not_open_leaves_the_one_before(browser: Any) -> None:
    with serving(MadeUp()) as server, looking(browser, server) as page:
        drag(page, (10, 10), (60, 60))
        scored(page, "10, 10, 60, 60")
        choose(page, b"no image")
        page.locator("#said", has_text="image: ").wait_for()
        scored(page, "10, 10, 60, 60")
        assert fields(page) == ["10", "10", "60", "60"]


def test_what_is_chosen_in_a_study_outlasts_a_file_that_does_not_open(
    browser: Any, tmp_path: Path
) -> None:
    record = Record(tmp_path / "reading.jsonl")
    with (
        serving(MadeUp(), record=record, study=True) as server,
        looking(browser, server) as page,
    ):
        drag(page, (10, 10), (60, 60))
        page.click("#questions label:has-text('benign')")
        page.fill("#study-note", "dark")
        held = Held(page, "**/images")
        choose(page, b"no image")
        held.wait_for(1)
        assert page.locator("#questions").is_hidden()  # it is of no image now
        assert page.locator("#study-record").is_disabled()
        held.let_go(0)
        page.locator("#study-record:enabled").wait_for()
        assert page.locator("#questions input:checked").input_value() == "benign"
        assert page.input_value("#study-note") == "dark"
        choose(page, SMALLER)
        held.wait_for(2)
        held.let_go(1)
        page.locator("#said", has_text="160 x 150 pixels").wait_for()
        assert page.locator("#questions input:checked").count() == 0
        assert page.input_value("#study-note") == ""


@pytest.mark.parametrize("what", ["image", pytest.param("frame", marks=pytest.mark.slow)])
def test_no_pixels_are_shown_but_those_asked_for(browser: Any, what: str) -> None:
    """The browser itself would show those of before, in the new size, until the new ones come."""
    bright = np.full((2, HEIGHT, WIDTH), 255, np.uint8)
    bright[1] = 100
    loop = dicoms.write(dicoms.dataset(bright, "MONOCHROME2", frames=2))
    with serving(MadeUp()) as server, looking(browser, server, loop) as page:
        page.locator("image.frame[visibility=visible]").wait_for()
        assert middle(page) == [255, 255, 255]
        held = Held(page, "**/images/*/*.png")
        if what == "image":
            choose(page, encode(np.full((150, 160), 100, np.uint8)))
        else:
            page.focus("figure svg")
            page.keyboard.press("PageDown")
        held.wait_for(1)
        assert middle(page) == [0, 0, 0]
        held.let_go(0)
        page.locator("image.frame[visibility=visible]").wait_for()
        assert middle(page) == [100, 100, 100]


def test_a_box_that_was_begun_on_the_image_before_is_none_on_this_one(browser: Any) -> None:
    with serving(MadeUp()) as server, looking(browser, server) as page:
        held = Held(page, "**/images")
        frame = page.locator("image.frame").bounding_box()
        page.mouse.move(frame["x"] + 20, frame["y"] + 20)
        page.mouse.down()
        page.mouse.move(frame["x"] + 90, frame["y"] + 90)
        choose(page, SMALLER)
        held.wait_for(1)
        page.mouse.move(frame["x"] + 100, frame["y"] + 100)
        held.let_go(0)
        page.locator("#said", has_text="160 x 150 pixels").wait_for()
        page.mouse.move(frame["x"] + 110, frame["y"] + 110)
        page.mouse.up()
        assert fields(page) == [""] * 4
        page.locator(".result", has_text="Draw a box").wait_for()


def test_the_rows_listed_are_those_chosen_last(browser: Any, results: Results) -> None:
    with serving(MadeUp(), results=results) as server, looking(browser, server, None) as page:
        page.locator("#counted", has_text="4 rows").wait_for()
        held = Held(page, "**/rows?*")
        page.select_option("#which", "failed")
        page.select_option("#order", "high:malignancy")
        page.select_option("#which", "all")
        held.wait_for(3)
        for number in (2, 0, 1):
            held.let_go(number)
        page.click("#next")
        page.locator("#counted", has_text="4 rows, 1 is open").wait_for()
        assert page.locator("#table tr[aria-current]").inner_text().startswith("2")


def test_a_list_that_does_not_come_passes_no_row_over(
    browser: Any, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonode.reader.results.PAGE", 2)
    with serving(MadeUp(), results=results) as server, looking(browser, server, None) as page:
        page.locator("#counted", has_text="4 rows").wait_for()
        for number in (1, 2):
            page.click("#next")
            page.locator("#counted", has_text=f"{number} is open").wait_for()
            page.locator("#said", has_text="pixels").wait_for()
        page.route("**/rows?*", lambda route: route.abort(), times=1)
        page.click("#next")
        page.locator("#said", has_text="does not answer").wait_for()
        page.click("#next")
        page.locator("#counted", has_text="3 is open").wait_for()


def test_a_verdict_pressed_twice_is_one_line(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "reading.jsonl"
    with serving(MadeUp(), record=Record(file)) as server, looking(browser, server) as page:
        drag(page, (10, 10), (60, 60))
        scored(page, "10, 10, 60, 60")
        page.dblclick("button[value=agree]")
        page.locator("#judged", has_text="Recorded: agree").wait_for()
        held = Held(page, "**/judge")
        page.click("button[value=disagree]")
        held.wait_for(1)
        page.dispatch_event("body", "keydown", {"key": "n"})
        drag(page, (100, 100), (180, 180))  # nothing else is done meanwhile
        page.locator("button[value='cannot judge']").click(force=True, no_wait_after=True)
        assert fields(page) == ["10", "10", "60", "60"]
        held.let_go(0)
        page.locator("#judged", has_text="Recorded: disagree").wait_for()
        assert held.count == 1
    assert [it["verdict"] for it in lines(file)] == ["agree", "disagree"]


def test_what_was_not_recorded_stays_said(browser: Any, tmp_path: Path) -> None:
    """A late answer of the model beside does not take it away."""
    file = tmp_path / "reading.jsonl"
    sources = (MadeUp(), MadeUp())
    with serving(*sources, record=Record(file)) as server, looking(browser, server) as page:
        drag(page, (10, 10), (60, 60))
        scored(page, "10, 10, 60, 60")
        held = Held(page, "**/score")
        page.select_option("#compare", index=1)
        held.wait_for(1)
        page.route("**/judge", lambda route: route.abort())
        page.click("button[value=agree]")
        page.locator("#judged.alert", has_text="is it still running?").wait_for()
        held.let_go(0)
        page.locator(".score").nth(1).wait_for()
        assert "is it still running?" in page.locator("#judged").inner_text()


def test_a_study_is_recorded_once_and_in_the_box_that_was_sent(
    browser: Any, tmp_path: Path
) -> None:
    file = tmp_path / "reading.jsonl"
    with (
        serving(MadeUp(), record=Record(file), study=True) as server,
        looking(browser, server) as page,
    ):
        drag(page, (10, 10), (60, 60))
        page.click("#questions label:has-text('benign')")
        held = Held(page, "**/study/before")
        page.dblclick("#study-record")
        held.wait_for(1)
        drag(page, (100, 100), (180, 180))
        held.let_go(0)
        scored(page, "10, 10, 60, 60")
        assert fields(page) == ["10", "10", "60", "60"]
        assert held.count == 1
    (line,) = lines(file)
    assert [line["stage"], line["roi_x_min"], line["roi_x_max"]] == ["before", 10, 60]


@pytest.mark.slow
def test_an_image_kept_beside_without_a_score_says_so(browser: Any) -> None:
    with serving(MadeUp()) as server, looking(browser, server) as page:
        held = Held(page, "**/score")
        drag(page, (10, 10), (60, 60))
        held.wait_for(1)
        page.click("#pin")
        held.let_go(0)
        scored(page, "10, 10, 60, 60")
        assert "It was kept before it had a score." in page.locator(".result").nth(1).inner_text()
