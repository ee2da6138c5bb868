"""Rows on their way into a cohort: each remembers its place in the source, so that faults can."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from model_def.preprocessing import Pixels, RoI
from sonode.files.parquet import ROI_COLUMNS
from train.cohorts.checks import Fault
from train.cohorts.images import ImageError, read_image
from train.importers.left_out import LeftOut
from train.importers.masks import MASK_THRESHOLD, mask_box, mask_greys, several_lesions
from train.tables.values import FormatError

T = TypeVar("T")


class BoxFile(NamedTuple):
    """A file that boxes of a record's rows come from, be it text or a mask."""

    path: Path
    size: tuple[int | None, int | None]
    rows: tuple[int, ...]
    image: str


class Draft:
    """A cohort to be in `out`; nothing is written before `write_draft` has checked it."""

    def __init__(self, out: Path, further: Mapping[str, type] | None = None) -> None:
        """Take the cohort's folder, and the further columns as name -> str or float."""
        self.out = out
        self.further = dict(further or {})
        self.rows: list[dict[str, object]] = []
        self.places: list[str] = []
        self.faults: list[Fault] = []
        self.pending: list[tuple[str, str]] = []
        self.box_files: list[BoxFile] = []
        self._box_files: list[tuple[Path, tuple[int | None, int | None]]] = []
        self.classes: dict[str, Counter[str]] = defaultdict(Counter)
        """How many boxes have which class that says no label, by the kind of box file."""
        self.left_out = LeftOut()
        self.notes: Counter[str] = Counter()
        self.secret: tuple[Path, str] | None = None
        """A file for its owner alone, and its text: written just before the table, which is of no
        use to another import without it."""

    def parse(self, field: str, parser: Callable[[str], T], text: str) -> T | None:
        """The value of a field of the record that is added next; a fault of it if it has none."""
        try:
            return parser(text)
        except FormatError as error:
            self.fault(field, str(error))
            return None

    def fault(self, field: str, what: str) -> None:
        """Note a fault of the record that is added next."""
        self.pending.append((field, what))

    def pixels(self, path: Path, field: str = "image") -> Pixels | None:
        """Grey pixels (H, W) of an image or mask; a fault of the next record if unreadable."""
        try:
            return read_image(path)
        except ImageError as error:
            self.fault(field, f"{path.name}: {error}")
            return None

    def drawn_in(self, path: Path, size: tuple[int | None, int | None] = (None, None)) -> None:
        """Note a file that has boxes of the record that is added next.

        `size` is the (width, height) of the frame that they were drawn on, None where unknown.
        """
        self._box_files.append((path, size))

    def mask(self, path: Path) -> RoI | None:
        """The box of a mask of the record that is added next; a fault of it if there is none."""
        pixels = self.pixels(path, "roi")
        if pixels is None:
            return None
        height, width = pixels.shape
        self.drawn_in(path, (width, height))
        greys = mask_greys(pixels)
        if several_lesions(greys):
            what = (
                f"holds the greys {', '.join(map(str, greys))}; give a mask of 0 and 255 for each"
            )
            self.fault("roi", f"{path.name} {what}")
            return None
        if len(greys) > 1:
            self.note(
                "masks have more than two grey levels (stored as JPEG?): pixels from "
                f"{MASK_THRESHOLD} on count as the lesion"
            )
        if (box := mask_box(pixels)) is None:
            self.fault("roi", f"{path.name} shows no lesion")
        return box

    def skip(self) -> None:
        """Forget what was noted of a record that is not added after all."""
        self.pending = []
        self._box_files = []

    def note(self, what: str, times: int = 1) -> None:
        """Count what `write_draft` is to say, as "WHAT (TIMES)", whatever becomes of the rows."""
        self.notes[what] += times

    def add(
        self,
        place: str,
        image: Path,
        boxes: Sequence[RoI | None],
        *,
        lesion_id: str,
        **values: object,
    ) -> None:
        """Add a record of the source: one row per box, each a lesion of its own.

        `values` are the cohort's other columns; those left out are missing. A second box's lesion
        is LESION_1, and so on. The faults noted since the last record are those of all its rows.
        """
        rows = tuple(range(len(self.rows), len(self.rows) + max(1, len(boxes))))
        self.faults += [Fault(rows[0], *fault, spoils=rows) for fault in self.pending]
        self.pending = []
        reference = _reference(image, self.out)
        self.box_files += [BoxFile(*its, rows, reference) for its in self._box_files]
        self._box_files = []
        for order, box in enumerate(boxes or [None]):
            self.rows.append(
                {
                    "image": reference,
                    "lesion_id": lesion_id + (f"_{order}" if order else ""),
                    **dict(zip(ROI_COLUMNS, box or (None,) * 4, strict=True)),
                    **values,
                }
            )
            self.places.append(place + (f" box {order + 1}" if len(boxes) > 1 else ""))


def _reference(image: Path, out: Path) -> str:
    """The image relative to the cohort where it lies inside it, else its absolute path."""
    image, out = image.resolve(), out.resolve()
    return str(image.relative_to(out) if image.is_relative_to(out) else image)
