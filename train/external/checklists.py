"""CLAIM 2024, TRIPOD+AI and STARD-AI as tables: filled where the software knows, else blank.

What is filled in is what metrics.json (and external.json) say, in plain sentences. It is a start:
the author reads every line, and writes the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from sonode.console import UserError
from sonode.files.atomic import check_new
from sonode.files.metrics import DEVELOPMENT, EXTERNAL, METRICS, read_metrics
from train import pages
from train.external.facts import facts
from train.measures.measure import Json

GUIDELINES = Path(__file__).with_suffix(".yaml")
PAGE = "checklists.html"


class Item(NamedTuple):
    """A line of a guideline, in our words."""

    number: str
    subject: str
    report: str
    filled: str
    """Empty where the author must write."""


def guidelines() -> list[dict[str, Any]]:
    """Name, file, source, note and items of each."""
    found: list[dict[str, Any]] = yaml.safe_load(GUIDELINES.read_text(encoding="utf-8"))
    return found


def items_of(guideline: dict[str, Any], known: dict[str, str]) -> list[Item]:
    """The guideline's lines; a fact that an evaluation does not have is blank."""
    return [
        Item(number, subject, report, " ".join(known[it] for it in of if it in known))
        for number, subject, report, named in guideline["items"]
        for of in [(named or "").split()]
    ]


def run(evidence: Path, out: Path, external: Path | None) -> None:
    """Write one page and a CSV of each guideline into `out`.

    Raises UserError: `out` is in use, no evaluation where one is named, or two of different
    networks.
    """
    check_new(out, in_place=True)
    metrics = read_metrics(evidence / METRICS)
    needed = ("model", "training", "cohort")
    if not all(isinstance(metrics["about"].get(it), dict) for it in needed):
        raise UserError(f"EVIDENCE {evidence}: is not of a network; give OUT of `sonode evaluate`")
    other = None if external is None else read_metrics(external / EXTERNAL, "sonode external")
    if other is not None:
        theirs = other["cohorts"].get(DEVELOPMENT, {}).get("about", {})
        if any(theirs.get(part) != metrics["about"][part] for part in ("model", "training")):
            raise UserError(
                f"--external {external}: is of another network than {evidence}; make both with one "
                "checkpoint"
            )
    known = facts(metrics, other)
    tables = [(it, items_of(it, known)) for it in guidelines()]
    page = render(metrics, tables)
    out.mkdir(parents=True, exist_ok=True)
    for guideline, items in tables:
        pd.DataFrame(items).to_csv(out / guideline["file"], index=False)
    (out / PAGE).write_text(page, encoding="utf-8")


def render(metrics: Json, tables: list[tuple[dict[str, Any], list[Item]]]) -> str:
    """The page."""
    return pages.render(
        "Reporting checklists",
        "external/checklists.html.j2",
        cohort=metrics["about"]["cohort"],
        tables=[
            (guideline, items, sum(bool(item.filled) for item in items))
            for guideline, items in tables
        ],
    )
