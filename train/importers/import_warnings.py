"""What an import reports beside faults and what it leaves out: odd ids, odd images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from sonode.console import first_of, say
from train.cohorts.checks import Scan
from train.tables.texts import alike, rounded_by_excel

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
"""How the names of image files end, in any case."""
DARK = 64
"""Of 1,661 images of BUSI and BUS-BRA each has a pixel of 142 at least; 12 bits in 16 end at 15."""
_NAMED = 50


def report_alike(
    rows: Sequence[Mapping[str, object]], places: Sequence[str], columns: Iterable[str]
) -> None:
    """Warn of ids and labels that are others by case, blanks, leading zeros or a .0 alone.

    `places` names each of the `rows`: the ids themselves are not printed.
    """
    for column in columns:
        found = alike(cast("str | None", row.get(column)) for row in rows)
        report(
            f"{column} differs by case, blanks, leading zeros or .0 alone and counts as different:",
            [" and ".join(places[row] for row in same) for same in found],
        )
    if rounded_by_excel(str(row["patient_id"]) for row in rows):
        say(
            "each patient_id of more than 15 digits ends in zeros there, as Excel rounds numbers: "
            "several patients may now share an id; export the ids as text"
        )


def report_images(scans: Mapping[str, Scan | str]) -> None:
    """Warn of images that are nearly black, and of orientations that are not applied."""
    known = {image: scan for image, scan in scans.items() if isinstance(scan, Scan)}
    dark = [Path(image).name for image, scan in known.items() if scan.brightest < DARK]
    report(
        f"images are nearly black (no pixel reaches {DARK} of 255), as 12-bit greys in a 16-bit "
        f"file are; scale them to the full range ({len(dark)}):",
        dark,
    )
    if turned := sum(scan.turned for scan in known.values()):
        say(
            f"images have an EXIF orientation ({turned}), which is not applied, as in serving: "
            "boxes must refer to the stored pixels, not to a rotated view"
        )


def report(heading: str, lines: Sequence[str]) -> None:
    """Print the heading and the first of the lines; nothing where there are none."""
    if lines:
        say(heading)
        for line in first_of(lines, len(lines), _NAMED):
            say(f"  {line}")
