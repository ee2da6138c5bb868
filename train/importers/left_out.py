"""What an import leaves out: printed with names, and counted for the record beside the cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sonode.console import say
from train.cohorts.checks import Fault
from train.cohorts.import_record import Exclusion
from train.importers.import_warnings import report


class LeftOut:
    """What of a source never became a row."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.exclusions: list[Exclusion] = []
        self.other_files: Counter[str] = Counter()

    def images(self, what: str, paths: Iterable[Path]) -> None:
        """Leave images of unknown patients out, as "WHAT (N)", and print their names."""
        if names := self._report(what, paths):
            self._count(what, len(names), None)

    def files(self, what: str, paths: Iterable[Path]) -> None:
        """Leave other files out, and print their names."""
        if names := self._report(what, paths):
            self.other_files[what] += len(names)

    def counted(self, what: str, images: int, patients: int | None) -> None:
        """Leave images out, of which the number alone is printed."""
        if images:
            say(f"{what} and are left out ({images})")
            self._count(what, images, patients)

    def _count(self, what: str, images: int, patients: int | None) -> None:
        self.exclusions.append(
            Exclusion(stage="source", reason=what, images=images, patients=patients)
        )

    def _report(self, what: str, paths: Iterable[Path]) -> list[str]:
        names = sorted(path.name for path in paths)
        report(f"{what} and are left out ({len(names)}):", names)
        return names


def of_checks(
    frame: pd.DataFrame, faults: Sequence[Fault], spoilt: Collection[int]
) -> list[Exclusion]:
    """The `spoilt` rows of a frame by the reason of their first fault, in order of appearance.

    An image or patient of which no row stays is counted with its first row.
    """
    reason: dict[int, str] = {}
    for fault in faults:
        reason.setdefault(fault.row, fault.reason)
    # Faults of one lesion or image share one tuple, which is gone through once.
    for rows, why in {(id(it.spoils), it.reason): (it.spoils, it.reason) for it in faults}.values():
        for row in rows:
            reason.setdefault(row, why)
    dropped = frame.index.isin(list(spoilt))
    lost = {"images": Counter[str](), "patients": Counter[str]()}
    for unit, column in (("images", "image"), ("patients", "patient_id")):
        left = set(frame[column][~dropped])
        seen: set[str] = set()
        for place in np.flatnonzero(dropped).tolist():
            value = str(frame[column].iloc[place])
            if value.strip() and value not in left and value not in seen:
                seen.add(value)
                lost[unit][reason[place]] += 1
    rows_of = Counter(reason[row] for row in sorted(spoilt))
    return [
        Exclusion(
            stage="checks",
            reason=why,
            images=lost["images"][why],
            patients=lost["patients"][why],
            rows=rows,
        )
        for why, rows in rows_of.items()
    ]
