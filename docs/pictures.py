"""Makes the pictures of README and pages from the phantom, never from real images.

`python docs/pictures.py OUT` takes what `make demo` has left in OUT. It needs Chromium for the
screenshots, and Playwright (extra `test`) to draw on the reader's page.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 1000, 710
READER = 1200, 800
IMAGE = "phantom_0002_3.png"
BOX = (151, 82, 254, 170)


def main(out: Path) -> None:
    """Write docs/pictures/heatmap.png, report.png and reader.png."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        image = out / "cohort" / "images" / IMAGE
        archive = next((out / "store").glob("*.mar"))
        explain = ["--explain", "gradcam:malignancy+full_frame", "--roi", ",".join(map(str, BOX))]
        sonode("predict", image, "--archive", archive, *explain, "--out", folder)
        small(next(Path(folder).glob("*-full_frame.png")), "heatmap.png", 450)

        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser is None:
            sys.exit("chromium is not installed; it draws the screenshot")
        shot = Path(folder) / "report.png"
        sonode(
            "evaluate", out / "training" / "checkpoint", out / "cohort", Path(folder) / "evidence"
        )
        page = (Path(folder) / "evidence" / "report.html").resolve().as_uri()
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--screenshot={shot}"]
        subprocess.run([browser, *options, f"--window-size={WIDTH},{HEIGHT}", page], check=True)
        small(shot, "report.png", WIDTH)
        reader(browser, archive, image, shot)
        small(shot, "reader.png", READER[0], READER[1])


def sonode(*words: str | Path) -> None:
    """Run a command of sonode."""
    subprocess.run([sys.executable, "-m", "sonode", *map(str, words)], check=True)


def reader(browser: str, archive: Path, image: Path, shot: Path) -> None:
    """Draw the box on the reader's page, and save what it looks like."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "sonode", "reader", "--archive", str(archive), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            with sync_playwright() as playwright:
                started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
                page = started.new_page(viewport={"width": READER[0], "height": READER[1]})
                page.goto(address)
                page.locator("main:not([inert])").wait_for()
                page.set_input_files("#file", image)
                for place, value in zip(page.locator("#box input").all(), BOX, strict=True):
                    place.fill(str(value))
                page.locator("#box input").last.blur()
                page.locator(".score").first.wait_for()
                page.screenshot(path=shot)
                started.close()
        finally:
            process.terminate()


def small(path: Path, name: str, width: int, height: int = HEIGHT) -> None:
    """Save a picture with at most `width` pixels a line and 256 colours, spread over all it has."""
    with Image.open(path) as picture:
        picture.thumbnail((width, height))
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
        few.save(PICTURES / name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
