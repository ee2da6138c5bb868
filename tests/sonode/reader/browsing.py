"""What tests of the page do in a real browser."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.conftest import encode
from tests.sonode.reader.conftest import Page

WIDTH, HEIGHT = 300, 200
SPECKLE = encode(np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8))
Corner = tuple[float, float]


@contextmanager
def looking(browser: Any, server: Page, image: bytes | None = SPECKLE, **how: Any) -> Iterator[Any]:
    """The page with an image open; a fault of its script, or a look elsewhere, fails the test."""
    faults: list[str] = []
    with browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **how}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda it: elsewhere(it.url, server) and faults.append(it.url))
        page.goto(server.server.url)
        page.locator("main:not([inert])").wait_for()
        if image is not None:
            file = {"name": "Jane Doe", "mimeType": "image/png", "buffer": image}
            page.set_input_files("#file", file)
            page.locator("#said", has_text="pixels").wait_for()
        yield page
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
        assert context.cookies() == []
    assert faults == []


def elsewhere(url: str, server: Page) -> bool:
    return not url.startswith((server.server.url, "data:"))


def drag(page: Any, start: Corner, end: Corner, pane: int = 0) -> None:
    """From one corner of stored pixels to another, by where the browser shows the image."""
    page.locator("figure svg").nth(pane).scroll_into_view_if_needed()
    frame = page.locator("image.frame").nth(pane).bounding_box()

    def place(corner: Corner) -> Corner:
        return (
            frame["x"] + corner[0] * frame["width"] / WIDTH,
            frame["y"] + corner[1] * frame["height"] / HEIGHT,
        )

    page.mouse.move(*place(start))
    page.mouse.down()
    page.mouse.move(*place(((start[0] + end[0]) / 2, end[1])))
    page.mouse.move(*place(end))
    page.mouse.up()


def scored(page: Any, box: str) -> None:
    """Wait until the result is of this box."""
    page.locator(".result", has_text=f"Box {box}").first.wait_for()


def fields(page: Any) -> list[str]:
    return [field.input_value() for field in page.locator("#box input").all()]


class Held:
    """Requests of the page that are kept back until the test lets them go on."""

    def __init__(self, page: Any, pattern: str) -> None:
        self._page = page
        self._routes: list[Any] = []
        page.route(pattern, self._hold)

    def _hold(self, route: Any) -> None:
        self._routes.append(route)

    def wait_for(self, count: int) -> None:
        """Wait until so many are here."""
        until = time.monotonic() + 60
        while len(self._routes) < count:
            assert time.monotonic() < until, f"{len(self._routes)} requests came, not {count}"
            self._page.wait_for_timeout(20)

    def let_go(self, number: int) -> None:
        """Send one on, counted in the order in which the page asked, and wait for its answer."""
        request = self._routes[number].request
        with self._page.expect_response(lambda answer: answer.request == request):
            self._routes[number].continue_()

    @property
    def count(self) -> int:
        """How many the page has sent."""
        return len(self._routes)
