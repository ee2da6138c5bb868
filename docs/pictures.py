"""Makes the README's two pictures from the phantom, never from real images.

`python docs/pictures.py OUT` takes what `make demo` has left in OUT. It needs Chromium for the
screenshot.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 900, 640


def main(out: Path) -> None:
    """Write docs/pictures/heatmap.png and report.png."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        image = out / "cohort" / "images" / "phantom_0002_0.png"
        archive = next((out / "store").glob("*.mar"))
        explain = ["--explain", "gradcam:malignancy+full_frame", "--roi", "92,105,196,199"]
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


def sonode(*words: str | Path) -> None:
    """Run a command of sonode."""
    subprocess.run([sys.executable, "-m", "sonode", *map(str, words)], check=True)


def small(path: Path, name: str, width: int) -> None:
    """Save a picture with at most `width` pixels a line and 128 colours."""
    with Image.open(path) as picture:
        picture.thumbnail((width, HEIGHT))
        picture.convert("RGB").quantize(128).save(PICTURES / name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
