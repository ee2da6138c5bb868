"""Table 2 and Figure 3: the network beside the radiomics baseline, on both of the paper's tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from train import pages
from train.evidence import plots
from train.evidence.report import PAPER_RADIOMICS, paper_figures
from train.measures.measure import Json, Resampling
from train.measures.units import UNITS, distinct_units, unit_codes
from train.paper.sections import Cell, Figure, Rows, Section, Table
from train.repeats.measured import (
    MEASURES,
    TITLES,
    TaskRows,
    differences,
    in_units,
    measured,
    roc_curve,
)
from train.repeats.runs import Scores
from train.repeats.variants import PAPERS_TWO, RADIOMICS, TASKS, HeldOut
from train.statistics.binary import Floats

SIZE = "Positive of all; patients"
OF_UNITS = (
    "The score of a lesion or patient is the mean over its images, and it is positive if one of "
    "them is; there are no rows per lesion where each has one image, or each patient has one."
)
TABLE, FIGURE = "tables/table-2.csv", "figures/figure-3-{}.png"


def section(
    test: HeldOut, scores: Scores, network: str, how: Resampling, absent: str | None, out: Path
) -> Section:
    """Both, and their files; `absent`: why there is no radiomics model, where there is none."""
    rows: list[list[Cell]] = []
    numbers, figures = Rows(), []
    for name in PAPERS_TWO:
        on = test.tested[name]
        models = {
            model: heads[name]
            for model, heads in scores.items()
            if model in (network, RADIOMICS) and name in heads
        }
        found: dict[str, dict[str, Json]] = {}
        for per, of, own in per_unit(test, name, models):
            its = {model: measured(of, score, how) for model, score in own.items()}
            _add_unit(name, per, of, its, own, network, how, numbers, rows)
            found = found or its
        if not found:
            why = "no training has labels of both classes: not trained"
            task, size = names(name, on)
            rows.append([task, "image", size, network, *[why] * len(MEASURES)])
        rows.append([TASKS[name].title, "", "paper’s cohort", "paper’s network", *papers(name)])
        figures.append(_figure(name, on, found, models, how, out))
    numbers.write(out / TABLE)
    return Section(
        title="Table 2 and Figure 3: network and radiomics",
        text=[*without_radiomics(absent)],
        tables=[
            Table(
                caption="Test part, threshold 0.5: mean ± SD over the repeats of a model, with the "
                f"95 % interval of the mean over draws of whole patients. {OF_UNITS} "
                "Differences are network minus radiomics on the same draws, with two-sided p of no "
                "difference, which are not adjusted for the number of measures. ALNM is measured "
                "on malignant lesions. The paper’s figures are of another cohort, as reference "
                f"only; its radiomics had an AUC of {PAPER_RADIOMICS} for malignancy.",
                columns=["Task", "Per", SIZE, "Model", *TITLES.values()],
                rows=rows,
                file=TABLE,
            )
        ],
        figures=[it for it in figures if it is not None],
    )


def _add_unit(
    name: str,
    per: str,
    on: TaskRows,
    found: Mapping[str, Mapping[str, Json]],
    models: Mapping[str, Floats],
    network: str,
    how: Resampling,
    numbers: Rows,
    rows: list[list[Cell]],
) -> None:
    """Add each model's row and, of two models, that of their difference."""
    task, size = names(name, on)
    for model, its in found.items():
        numbers.add(its, task=name, per=per, model=model, **counts(on))
        rows.append([task, per, size, model, *(its[it] for it in MEASURES)])
    if len(models) == 2:
        apart = differences(on, models[network], models[RADIOMICS], how)
        minus = f"{network} minus {RADIOMICS}"
        numbers.add(apart, task=name, per=per, model=minus, **counts(on))
        rows.append([task, per, size, "difference", *(apart[it] for it in MEASURES)])


def per_unit(
    test: HeldOut, name: str, models: Mapping[str, Floats]
) -> Iterator[tuple[str, TaskRows, Mapping[str, Floats]]]:
    """Each unit: the task's rows in it, and each model's scores (N, R); see `in_units`.

    Without lesions where each has one image, or each patient has one.
    """
    on, rows = test.tested[name], test.rows[test.known[name]]
    for unit in UNITS if models else ():
        if unit == "lesion" and unit not in distinct_units(rows):
            continue
        code_N = unit_codes(rows, unit)
        both = {model: in_units(on, score_NR, code_N) for model, score_NR in models.items()}
        yield unit, next(iter(both.values()))[0], {it: scores for it, (_, scores) in both.items()}


def counts(on: TaskRows) -> Json:
    """On how many rows a task is measured."""
    return {"rows": len(on.truth_N), "positive": int(on.truth_N.sum()), "patients": on.patients}


def names(name: str, on: TaskRows) -> list[Cell]:
    """The first cells of a row: the task, and on how many rows."""
    of = "{positive} of {rows}; {patients}".format(**counts(on))
    return [TASKS[name].title, of]


def papers(name: str) -> Iterator[str]:
    """The paper's figures in the order of `MEASURES`; it gives three in its text."""
    figures = paper_figures(name, {"target": TASKS[name].head.target}) or ()
    known = dict(zip(("roc_auc", "sensitivity", "specificity"), figures, strict=False))
    for measure in MEASURES:
        yield f"{known[measure]:.3f}" if measure in known else "–"


def without_radiomics(absent: str | None) -> Sequence[str]:
    """Why there is no radiomics model, where there is none."""
    return () if absent is None else (f"There is no radiomics model beside the network: {absent}.",)


def _figure(
    name: str,
    on: TaskRows,
    found: Mapping[str, Mapping[str, Json]],
    models: Mapping[str, Floats],
    how: Resampling,
    out: Path,
) -> Figure | None:
    several = {
        model: {"curves": {"roc": curve}, "roc_auc": found[model]["roc_auc"]}
        for model, score_NR in models.items()
        if (curve := roc_curve(on, score_NR, how)) is not None
    }
    if not several:
        return None
    file = FIGURE.format(name)
    svg = plots.roc_overlaid(several, out / file)
    aucs = (f"{model}, area {its['roc_auc']['value']:.3f}" for model, its in several.items())
    return Figure(
        caption=f"{TASKS[name].title}: mean curve over the repeats with its 95 % band.",
        alt=f"ROC curves, {TASKS[name].title}: {'; '.join(aucs)}",
        uri=pages.svg_uri(svg),
        file=file,
    )
