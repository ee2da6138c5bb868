"""The page in a real browser: what is drawn is what is scored; keys, fingers, sizes, no errors."""

import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives.serving.predict import Answer
from sonode.reader.judgements.record import Record
from sonode.reader.results import Results
from tests.conftest import encode
from tests.handlers import dicoms
from tests.sonode.reader.browsing import (
    HEIGHT,
    SPECKLE,
    WIDTH,
    Corner,
    drag,
    fields,
    looking,
    scored,
)
from tests.sonode.reader.conftest import MadeUp, body, serving
from tests.sonode.reader.test_results import URIS, run


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_box_drawn_is_the_box_scored_at_three_zooms(browser: Any, ratio: int) -> None:
    source = MadeUp()
    with serving(source) as server, looking(browser, server, device_scale_factor=ratio) as page:
        for zoom, corners in (
            (0, (92, 105, 196, 199)),
            (-6, (3, 5, 61, 77)),
            (5, (131, 80, 170, 117)),
        ):
            page.click("#zoom-fit")
            for _ in range(abs(zoom)):
                page.click("#zoom-in" if zoom > 0 else "#zoom-out")
            page.focus("figure svg")
            page.keyboard.press("Delete")
            drag(page, corners[:2], corners[2:])
            scored(page, ", ".join(map(str, corners)))
            assert source.asked[-1]["roi"] == ",".join(map(str, corners))
            assert fields(page) == [str(it) for it in corners]
            drawn = page.locator("rect.box").last.evaluate(
                "it => ['x', 'y', 'width', 'height'].map(name => Number(it.getAttribute(name)))"
            )
            x0, y0, x1, y1 = corners
            assert drawn == [x0, y0, x1 - x0, y1 - y0]


def test_a_box_is_moved_and_resized_by_the_mouse_within_the_frame(browser: Any) -> None:
    source = MadeUp()
    with serving(source) as server, looking(browser, server) as page:
        drag(page, (40, 50), (100, 120))
        scored(page, "40, 50, 100, 120")
        drag(page, (70, 80), (90, 75))
        scored(page, "60, 45, 120, 115")
        drag(page, (60, 45), (50, 30))
        scored(page, "50, 30, 120, 115")
        drag(page, (120, 70), (20, 70))  # its right edge beyond its left one
        scored(page, "20, 30, 50, 115")
        drag(page, (35, 70), (-100, 400))  # no further than the frame goes
        scored(page, "0, 115, 30, 200")
        drag(page, (290, 10), (1000, -50))
        scored(page, "290, 0, 300, 10")
        drag(page, (150, 150), (150, 150))  # no box
        assert fields(page) == ["290", "0", "300", "10"]


def test_the_keyboard_alone_is_enough(browser: Any, tmp_path: Path) -> None:
    source, file = MadeUp(), tmp_path / "reading.jsonl"
    with serving(source, record=Record(file)) as server, looking(browser, server) as page:

        def tab_to(selector: str) -> None:
            for _ in range(60):
                if page.locator(selector).evaluate("it => it === document.activeElement"):
                    return
                page.keyboard.press("Tab")
            raise AssertionError(f"{selector} is not reached by Tab")

        tab_to("figure svg")
        page.keyboard.press("b")
        x0, y0, x1, y1 = (int(it) for it in fields(page))
        assert 0 <= x0 < x1 <= WIDTH
        assert 0 <= y0 < y1 <= HEIGHT
        for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Shift+ArrowLeft", "Control+ArrowLeft"):
            page.keyboard.press(key)
        expected = [x0 - 9, y0 + 2, x1 - 10, y1 + 2]
        scored(page, ", ".join(map(str, expected)))
        assert source.asked[-1]["roi"] == ",".join(map(str, expected))
        tab_to("#opacity")
        page.keyboard.press("Home")
        assert page.locator("image.layer").get_attribute("opacity") == "0"
        tab_to("#note")
        page.keyboard.type("seen")
        tab_to("#judge button[value=disagree]")
        page.keyboard.press("Enter")
        page.locator("#judged", has_text="Recorded").wait_for()
        assert '"verdict": "disagree"' in file.read_text()
        page.locator("#box input").nth(2).focus()
        page.keyboard.press("Control+a")
        page.keyboard.type("299")
        page.keyboard.press("Enter")
        scored(page, f"{expected[0]}, {expected[1]}, 299, {expected[3]}")


def test_a_dropped_file_is_opened(browser: Any) -> None:
    with serving(MadeUp()) as server, looking(browser, server, None) as page:
        dropped = page.evaluate_handle(
            """bytes => {
                const carried = new DataTransfer();
                carried.items.add(new File([new Uint8Array(bytes)], 'Jane Doe'));
                return carried;
            }""",
            list(SPECKLE),
        )
        page.dispatch_event("#panes", "dragover", {"dataTransfer": dropped})
        assert page.locator("body.over").count() == 1
        page.dispatch_event("#panes", "drop", {"dataTransfer": dropped})
        page.locator("#said", has_text="300 x 200 pixels").wait_for()
        assert page.locator("body.over").count() == 0
        drag(page, (10, 10), (60, 60))
        scored(page, "10, 10, 60, 60")


def test_a_reading_is_of_the_rows_frame(browser: Any, tmp_path: Path) -> None:
    loop = np.random.default_rng(3).integers(0, 256, (2, HEIGHT, WIDTH), dtype=np.uint8)
    (tmp_path / "1.png").write_bytes(dicoms.write(dicoms.dataset(loop, "MONOCHROME2", frames=2)))
    results = Results([run(tmp_path, "1.0", 0.0, 3, URIS)], str(tmp_path))
    record = Record(tmp_path / "reading.jsonl")
    with (
        serving(MadeUp(), results=results, record=record, study=True) as server,
        looking(browser, server, image=None) as page,
    ):
        page.click("#table tbody tr:nth-child(2) td:nth-child(2)")
        page.locator("#study-record:enabled").wait_for()
        page.focus("figure svg")
        page.keyboard.press("PageDown")
        page.locator("#studied", has_text="This reading is of frame 1: go back to it.").wait_for()
        assert page.locator("#study-record").is_disabled()
        page.keyboard.press("PageUp")
        page.locator("#study-record:enabled").wait_for()


def test_a_study_hides_the_scores_until_it_was_read(browser: Any, tmp_path: Path) -> None:
    file, source = tmp_path / "reading.jsonl", MadeUp()
    with (
        serving(source, record=Record(file), study=True) as server,
        looking(browser, server) as page,
    ):
        assert page.locator("#study-record").is_disabled()
        drag(page, (10, 10), (60, 60))
        page.locator(".result", has_text="Hidden until you have judged").wait_for()
        page.click("#questions label:has-text('benign')")
        page.focus("#study-note")
        page.keyboard.type("dark")
        assert source.asked == []
        page.click("#study-record")
        scored(page, "10, 10, 60, 60")
        page.locator("#box input").first.fill("20")
        page.keyboard.press("Enter")
        assert fields(page) == ["10", "10", "60", "60"]  # the box of the first reading stays
        drag(page, (100, 100), (180, 180))
        scored(page, "10, 10, 60, 60")
        assert fields(page) == ["10", "10", "60", "60"]
        assert page.locator("#questions input:checked").count() == 0
        page.click("#questions label:has-text('malignant')")
        page.click("#study-record")
        page.locator("#studied", has_text="Both readings are recorded").wait_for()
        assert page.locator("#study-record").is_disabled()
        assert page.locator("#judge").is_hidden()
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert [first[it] for it in ("stage", "reader_label", "note")] == ["before", "benign", "dark"]
    assert [second[it] for it in ("stage", "reader_label", "note")] == ["after", "malignant", ""]


def test_an_answer_that_is_overtaken_is_dropped(browser: Any) -> None:
    """The first box's answer comes after the second box was drawn."""
    first_asked, go_on = threading.Event(), threading.Event()

    def answer(roi: list[int]) -> Answer:
        if roi[0] == 10:
            first_asked.set()
            go_on.wait(30)
            return 200, body(roi, 0.01)
        return 200, body(roi, 0.99)

    source = MadeUp(answer)
    with serving(source) as server, looking(browser, server) as page:
        drag(page, (10, 10), (60, 60))
        while not first_asked.is_set():
            page.wait_for_timeout(20)
        drag(page, (100, 100), (180, 180))
        page.wait_for_timeout(400)  # it has settled, and waits for the first one
        assert page.locator(".score").count() == 0
        go_on.set()
        scored(page, "100, 100, 180, 180")
        assert "99.0 %" in page.locator("#results").inner_text()
        assert [it["roi"] for it in source.asked] == ["10,10,60,60", "100,100,180,180"]


def test_faults_are_told_and_can_be_tried_again(browser: Any) -> None:
    answers = [(503, {"code": "busy", "message": "the server is busy"})]
    source = MadeUp(lambda roi: answers.pop() if answers else (200, body(roi)))
    with serving(source) as server, looking(browser, server) as page:
        drag(page, (10, 10), (60, 60))
        page.locator(".result", has_text="No score: the server is busy").wait_for()
        page.click("text=Try again")
        scored(page, "10, 10, 60, 60")
        page.locator("#box input").nth(2).fill("5")
        page.locator("#box input").nth(2).blur()
        page.locator(".result", has_text="The box is empty").wait_for()
        page.set_input_files("#file", {"name": "x", "mimeType": "", "buffer": b"no image"})
        page.locator("#said", has_text="image: ").wait_for()
        page.route("**/score", lambda route: route.abort())
        drag(page, (100, 100), (180, 180))
        page.locator(".result", has_text="is it still running?").wait_for()


def test_a_result_says_all_that_a_reader_must_know(browser: Any) -> None:
    with serving(MadeUp()) as server, looking(browser, server) as page:
        header = page.locator("header").inner_text()
        assert "Research use only" in header
        assert "tiny 1.0 (abababababab)" in header
        assert "Tested on: phantom (test part, synthetic)" in header
        drag(page, (10, 10), (60, 60))
        scored(page, "10, 10, 60, 60")
        text = page.locator("#results").inner_text()
        for said in (
            "Malignancy 75.0 %, called malignant",
            "Called malignant above 50.0 %",
            "Uncertain: it may also be benign.",
            "In 90 of 100 such patients the true label is among: benign, malignant (found on",
            "The box is so small that the image is enlarged more than 8 times.",
        ):
            assert said in text
        page.click("#show-card")
        assert "# Model card: tiny 1.0" in page.locator("#card pre").inner_text()
        page.keyboard.press("Escape")
        layer = page.locator("image.layer")
        assert [layer.get_attribute(it) for it in ("x", "y", "width", "height")] == [
            "10",
            "10",
            "50",
            "50",
        ]
        page.select_option("#head", "none")
        assert layer.get_attribute("href") == ""


def test_window_and_level_change_no_score(browser: Any) -> None:
    source = MadeUp()
    with serving(source) as server, looking(browser, server) as page:
        drag(page, (10, 10), (60, 60))
        scored(page, "10, 10, 60, 60")
        page.focus("#window")
        page.keyboard.press("Home")
        assert page.locator("image.frame").get_attribute("filter") == "url(#display)"
        page.wait_for_timeout(400)
        assert len(source.asked) == 1
        page.click("#display-reset")
        assert page.locator("image.frame").get_attribute("filter") == "none"
        page.focus("#window")
        page.keyboard.press("Home")
        file = {"name": "x", "mimeType": "image/png", "buffer": encode(np.zeros((9, 9), np.uint8))}
        page.set_input_files("#file", file)
        page.locator("#said", has_text="9 x 9").wait_for()
        assert page.locator("image.frame").get_attribute("filter") == "none"  # each image anew


def test_nothing_can_be_chosen_before_the_page_knows_its_models(browser: Any) -> None:
    """A file that is chosen earlier would be opened by no one."""
    with serving(MadeUp()) as server, browser.new_context() as context:
        page = context.new_page()
        held: list[Any] = []

        def hold(route: Any) -> None:
            held.append(route)

        page.route("**/about", hold)
        with page.expect_request("**/about"):
            page.goto(server.server.url)
        button = page.locator("label", has_text="Open image or DICOM")
        assert (
            button.evaluate("it => { it.control.focus(); return document.activeElement.tagName }")
            == "BODY"
        )
        held[0].continue_()
        page.locator("main:not([inert])").wait_for()
        assert (
            button.evaluate("it => { it.control.focus(); return document.activeElement.id }")
            == "file"
        )


def test_a_loop_has_a_slider_and_its_frame_is_scored(browser: Any) -> None:
    loop = np.stack([np.full((HEIGHT, WIDTH), it, np.uint8) for it in (20, 90, 160)])
    source = MadeUp()
    file = dicoms.write(dicoms.dataset(loop, "MONOCHROME2", frames=3))
    with serving(source) as server, looking(browser, server, file) as page:
        drag(page, (10, 10), (60, 60))
        scored(page, "10, 10, 60, 60")
        page.focus("#frame")
        page.keyboard.press("End")
        page.locator("#frame-number", has_text="3 of 3").wait_for()
        scored(page, "10, 10, 60, 60")
        page.focus("figure svg")
        page.keyboard.press("PageUp")
        scored(page, "10, 10, 60, 60")
        assert [it["frame"] for it in source.asked] == ["0", "2", "1"]


def test_two_versions_side_by_side_and_one_kept_beside(browser: Any) -> None:
    new = MadeUp(lambda roi: (200, body(roi, 0.3)))
    new.facts = {**new.facts, "title": "tiny 1.1"}
    with serving(MadeUp(), new) as server, looking(browser, server) as page:
        drag(page, (10, 10), (60, 60))
        page.select_option("#compare", label="tiny 1.1")
        page.locator(".score").nth(1).wait_for()
        assert "75.0 %, called malignant" in page.locator(".result").nth(0).inner_text()
        assert "30.0 %, called benign" in page.locator(".result").nth(1).inner_text()
        drag(page, (100, 30), (170, 90), pane=1)  # either pane takes the box
        page.locator(".result", has_text="Box 100, 30, 170, 90").nth(1).wait_for()
        page.click("#pin")
        drag(page, (200, 30), (270, 90))
        scored(page, "200, 30, 270, 90")
        assert "Box 100, 30, 170, 90" in page.locator(".result").nth(1).inner_text()
        page.locator("figure svg").nth(1).focus()
        for key in ("ArrowRight", "b", "Delete"):
            page.keyboard.press(key)
        assert fields(page) == ["200", "30", "270", "90"]
        page.click("text=Remove the image beside")
        assert page.locator("figure").count() == 1
        page.click("text=Keep this image beside")
        page.wait_for_function(
            """() => [...document.querySelectorAll('figure > svg')].every(svg => {
                const around = svg.getBoundingClientRect();
                const frame = svg.querySelector('image.frame').getBoundingClientRect();
                return frame.left >= around.left - 1 && frame.right <= around.right + 1;
            })"""  # both are seen whole
        )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    for name in URIS[:2]:
        (tmp_path / name).write_bytes(SPECKLE)
    runs = [
        run(tmp_path, version, shift, 3, URIS) for version, shift in (("1.0", 0), ("1.1", -0.15))
    ]
    return Results(runs, str(tmp_path))


def test_a_run_is_stepped_through_by_keys(browser: Any, results: Results) -> None:
    source = MadeUp()
    with serving(source, results=results) as server, looking(browser, server, None) as page:
        page.locator("#counted", has_text="4 rows").wait_for()
        page.select_option("#order", "high:malignancy")
        page.locator("#table tbody tr").first.filter(has_text="90.0 %").wait_for()
        page.keyboard.press("Tab")
        page.keyboard.press("n")
        scored(page, "1, 2, 30, 40")
        assert source.asked[-1]["roi"] == "1,2,30,40"
        assert page.locator("#table tr[aria-current]").inner_text().startswith("2")
        page.focus("button[aria-label='Open row 2']")
        page.keyboard.press("Enter")
        page.locator("button[aria-label='Open row 2']:focus").wait_for()
        page.keyboard.press("n")
        page.locator("#said", has_text="no such file").wait_for()
        assert page.locator(".score").count() == 0
        page.select_option("#which", "flipped")
        page.locator("#counted", has_text="1 rows").wait_for()
        assert "benign, changed" in page.locator("#table").inner_text()


@pytest.mark.parametrize("theme", ["dark", pytest.param("light", marks=pytest.mark.slow)])
def test_axe_finds_no_violation(browser: Any, theme: str, results: Results, tmp_path: Path) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    record = Record(tmp_path / "reading.jsonl")
    with (
        serving(MadeUp(), MadeUp(), results=results, record=record) as server,
        looking(browser, server) as page,
    ):
        if theme == "light":
            page.click("#theme")
        drag(page, (10, 10), (60, 60))
        page.select_option("#compare", index=1)
        page.locator(".score").nth(1).wait_for()
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.click("#show-card")
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    with serving(MadeUp(), record=record, study=True) as server, looking(browser, server) as page:
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize(
    ("width", "height"), [(360, 740), pytest.param(820, 1180, marks=pytest.mark.slow), (3840, 2160)]
)
def test_widths_from_phone_to_4k(browser: Any, width: int, height: int, results: Results) -> None:
    size = {"width": width, "height": height}
    with (
        serving(MadeUp(), results=results) as server,
        looking(browser, server, viewport=size) as page,
    ):
        drag(page, (10, 10), (60, 60))
        scored(page, "10, 10, 60, 60")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        for said in (".research", "#model"):  # at all times
            place = page.locator(said).bounding_box()
            assert 0 <= place["y"] < 200
        frame = page.locator("image.frame").bounding_box()
        assert frame["width"] >= min(300, 0.8 * width)


def test_a_finger_draws_and_two_zoom_and_move(browser: Any) -> None:
    source = MadeUp()
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with serving(source) as server, looking(browser, server, **phone) as page:
        page.locator("figure svg").scroll_into_view_if_needed()
        frame = page.locator("image.frame").bounding_box()
        touch = page.context.new_cdp_session(page)

        def fingers(kind: str, *places: Corner) -> None:
            points = [
                {
                    "x": frame["x"] + x * frame["width"] / WIDTH,
                    "y": frame["y"] + y * frame["height"] / HEIGHT,
                    "id": number,
                }
                for number, (x, y) in enumerate(places)
            ]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        fingers("touchStart", (50, 60))
        fingers("touchMove", (100, 80))
        fingers("touchMove", (150, 120))
        fingers("touchEnd")
        scored(page, "50, 60, 150, 120")
        before = int(re.findall(r"\d+", page.locator("#zoom").inner_text())[0])
        fingers("touchStart", (100, 100), (120, 100))
        fingers("touchMove", (60, 100), (160, 100))
        fingers("touchEnd")
        assert int(re.findall(r"\d+", page.locator("#zoom").inner_text())[0]) > 2 * before
        there = page.locator("image.frame").bounding_box()
        fingers("touchStart", (100, 100), (120, 100))
        fingers("touchMove", (100, 80), (120, 80))
        fingers("touchEnd")
        moved = page.locator("image.frame").bounding_box()["y"] - there["y"]
        assert moved == pytest.approx(-20 * frame["height"] / HEIGHT, abs=1)
        assert fields(page) == ["50", "60", "150", "120"]
