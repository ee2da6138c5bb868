"""What the page is made of: sections with tables and figures, and the files behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sonode.files.atomic import write_whole
from train import pages
from train.measures.measure import Json

Cell = str | Json
"""Text, or a measure as `train.measures.measure` has it, with `sd` or `p_value` if it has one."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page; the first cells of a row name it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    file: str
    """Its numbers, below OUT."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of the page; neither caption nor alternative text names a patient."""

    caption: str
    alt: str
    uri: str
    file: str
    """The same as PNG, below OUT."""
    wide: bool = False
    """Whether it takes the width of the page."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with what stands below it."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


@dataclass
class Rows:
    """Measures in long form, as they are written into a CSV."""

    found: list[Json] = field(default_factory=list)

    def add(self, measures: Mapping[str, Json], **facts: Any) -> None:
        """Add a row for each measure, with `facts` before it."""
        self.found += [{**facts, "measure": name, **its} for name, its in measures.items()]

    def write(self, path: Path) -> None:
        """Write them; where a measure is undefined its column `reason` says why."""
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(self.found).to_csv(path, index=False)


def write_page(out: Path, title: str, intro: Sequence[Json], sections: Sequence[Section]) -> Path:
    """Write the page whole or not at all; it needs no file beside it."""
    text = pages.render(title, "paper/paper.html.j2", intro=intro, sections=sections)
    write_whole(path := out / "paper.html", text)
    return path
