"""Figure 1: the flow of patients and images from the source to the parts, with every exclusion."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sonode.console import counted
from train import pages
from train.cohorts.cohort import TABLE, Cohort
from train.cohorts.import_record import ImportRecord, Stage, counts_of, read_record
from train.cohorts.labels import implied, label_matrix
from train.cohorts.split import PARTS, parts_of
from train.evidence import plots
from train.paper.sections import Figure, Section
from train.radiomics.forest import HEADS
from train.repeats.variants import PAPERS_TWO, TASKS

NUMBERS, FIGURE = "tables/figure-1.csv", "figures/figure-1.png"
_WIDTH, _LINE, _GAP = 8.6, 0.165, 0.3  # inches
_LETTERS = 15  # to an inch, at the figure's size of text
_PART = {"train": "Training", "val": "Validation", "test": "Test"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One number of the figure; what a step leaves out is subtracted from the one before."""

    box: str
    """`source`, `rows`, `cohort` or a part."""
    what: str
    """`in it`, a reason for leaving out, or what a task does with the rows of a part."""
    patients: int | None = None
    images: int | None = None
    rows: int | None = None
    task: str = ""


def flow_section(cohort: Cohort, split_seed: int, out: Path) -> Section:
    """The figure and its numbers."""
    steps, record = flow(cohort, split_seed), read_record(cohort.folder / TABLE)
    (out / NUMBERS).parent.mkdir(exist_ok=True)
    pd.DataFrame(steps).astype(dict.fromkeys(("patients", "images", "rows"), "Int64")).to_csv(
        out / NUMBERS, index=False
    )
    text = [f"What the import left out is {record}."] if isinstance(record, str) else []
    if isinstance(record, ImportRecord) and (record.other_files or record.notes):
        every = {**record.other_files, **record.notes}
        lines = "; ".join(f"{what}: {count}" for what, count in every.items())
        text.append(f"Beside the figure, the import counted: {lines}.")
    if not cohort.patient_ids:
        text.append("The set has no patient ids: “patients” are images or groups of similar ones.")
    return Section(
        title="Figure 1: flow of patients and images",
        text=text,
        figures=[
            Figure(
                caption="From the source to training, validation and test part. A row is one "
                "lesion box in one image. A row counts for its first fault; an image or a patient "
                "is left out where none of its rows stays. ALNM is learned and measured on "
                f"malignant lesions. Numbers: {NUMBERS}.",
                alt="Flow chart: " + "; ".join(_as_text(steps)),
                uri=pages.svg_uri(_drawn(steps, out / FIGURE)),
                file=FIGURE,
                wide=True,
            )
        ],
    )


def flow(cohort: Cohort, split_seed: int) -> list[Step]:
    """Every number of the figure, in its order; those of the import where they are recorded."""
    record = read_record(cohort.folder / TABLE)
    steps = [] if isinstance(record, str) else [*_imported(record)]
    kept = counts_of(cohort.table)
    assert isinstance(record, str) or record.kept == kept
    steps.append(Step(box="cohort", what="in it", **vars(kept)))
    parts_N = np.array(parts_of(cohort.table, split_seed))
    truth_NK = implied(label_matrix(cohort.table, HEADS), HEADS).numpy()
    for part in PARTS:
        in_N = parts_N == part
        steps.append(Step(box=part, what="in it", **vars(counts_of(cohort.table[in_N]))))
        malignant_N, known_NK = truth_NK[:, 0] == 1, ~np.isnan(truth_NK)
        for k, name in enumerate(PAPERS_TWO):
            used_N = known_NK[:, k] & (malignant_N if k else True)
            reasons = {"label unknown": malignant_N & ~used_N if k else ~used_N}
            if k:
                reasons["benign"] = truth_NK[:, 0] == 0
                reasons["malignancy unknown"] = ~known_NK[:, 0]
            used = counts_of(cohort.table[in_N & used_N])
            steps.append(Step(box=part, task=name, what="used", **vars(used)))
            steps += [
                Step(box=part, task=name, what=why, rows=int((in_N & it_N).sum()))
                for why, it_N in reasons.items()
            ]
    return steps


def _imported(record: ImportRecord) -> list[Step]:
    def left(box: str, stage: Stage) -> list[Step]:
        return [
            Step(
                box=box,
                what=it.reason,
                patients=it.patients,
                images=it.images,
                rows=it.rows if stage == "checks" else None,
            )
            for it in record.of(stage)
        ]

    return [
        Step(
            box="source",
            what="in it",
            patients=record.source_patients,
            images=record.source_images,
        ),
        *left("source", "source"),
        Step(box="rows", what="in it", **vars(record.read)),
        *left("rows", "checks"),
    ]


def _counted(step: Step) -> str:
    units = ((step.patients, "patient"), (step.images, "image"), (step.rows, "row"))
    known = [(n, name) for n, name in units if n is not None]
    if not any(n for n, _ in known):
        return "none"
    return ", ".join(counted(n, name) for n, name in known)


def _as_text(steps: Sequence[Step]) -> list[str]:
    return [" ".join(filter(None, (it.box, it.task, it.what, _counted(it)))) for it in steps]


def _drawn(steps: Sequence[Step], png: Path) -> str:
    """Boxes one below the other, what is left out to their right, the parts at the bottom."""
    titles = {"source": "In the source", "rows": "Rows read from it", "cohort": "Cohort"}
    main: list[tuple[list[str], list[str]]] = []
    for box, title in titles.items():
        its = [it for it in steps if it.box == box]
        if not its:
            continue
        total, left = its[0], its[1:]
        why = [line for it in left for line in _wrapped(f"{it.what}: {_counted(it)}", 4.6)]
        main.append(([title, *_wrapped(_counted(total), 3.1)], ["Left out", *why] if why else []))
    parts = [_part_lines([it for it in steps if it.box == part], part) for part in PARTS]
    heights = [max(len(box), len(beside)) * _LINE + 0.15 for box, beside in main]
    lowest = max(map(len, parts)) * _LINE + 0.15
    height = sum(heights) + len(heights) * _GAP + lowest + 0.15
    with plots.drawing(png=png, size=(_WIDTH, height)) as (svg, axes):
        axes.set_axis_off()
        axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
        top = 0.05
        for (inside, beside), tall in zip(main, heights, strict=True):
            _box(axes, 0.05, top, 3.3, tall, inside)
            if beside:
                _box(axes, 3.75, top, 4.8, tall, beside)
                _arrow(axes, (3.35, top + tall / 2), (3.75, top + tall / 2))
            end = top + tall + _GAP
            if inside is not main[-1][0]:
                _arrow(axes, (1.7, top + tall), (1.7, end))
            top = end
        wide = (_WIDTH - 0.1 - 2 * 0.2) / 3
        for place, lines in enumerate(parts):
            left_edge = 0.05 + place * (wide + 0.2)
            _box(axes, left_edge, top, wide, lowest, lines)
            _arrow(axes, (1.7, top - _GAP), (left_edge + wide / 2, top))
    return str(svg.getvalue())


def _part_lines(steps: Sequence[Step], part: str) -> list[str]:
    lines = [_PART[part], *_wrapped(_counted(steps[0]), 2.5)]
    for name in PAPERS_TWO:
        used, *reasons = (it for it in steps if it.task == name)
        lines += ["", *_wrapped(f"{TASKS[name].title}: {_counted(used)}", 2.5)]
        for it in reasons:
            lines += _wrapped(f"left out, {it.what}: {_counted(it)}", 2.5) if it.rows else []
    return lines


def _wrapped(text: str, inches: float) -> list[str]:
    return textwrap.wrap(text, int(inches * _LETTERS))


def _box(axes: Axes, x: float, y: float, wide: float, tall: float, lines: Sequence[str]) -> None:
    """A frame with lines of text, the first of them in bold."""
    axes.add_patch(Rectangle((x, y), wide, tall, fill=False, lw=0.8, ec=plots.GREY))
    for place, line in enumerate(lines):
        weight = "normal" if place else "bold"
        axes.text(
            x + 0.08,
            y + 0.08 + place * _LINE,
            line,
            va="top",
            fontweight=weight,
            fontsize=8,
        )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "lw": 0.8, "color": plots.GREY, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
