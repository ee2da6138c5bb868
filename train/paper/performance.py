"""Table 2 and Figure 3: the network beside the radiomics baseline, on both of the paper's tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from train import pages
from train.evidence import plots
from train.evidence.report import PAPER_RADIOMICS, paper_figures
from train.measures.measure import Json, Resampling
from train.paper.sections import Cell, Figure, Rows, Section, Table
from train.repeats.measured import MEASURES, TITLES, TaskRows, differences, measured, roc_curve
from train.repeats.runs import Scores
from train.repeats.variants import PAPERS_TWO, RADIOMICS, TASKS, HeldOut
from train.statistics.binary import Floats

TABLE, FIGURE = "tables/table-2.csv", "figures/figure-3-{}.png"


def section(
    test: HeldOut, scores: Scores, network: str, how: Resampling, absent: str | None, out: Path
) -> Section:
    """Both, and their files; `absent`: why there is no radiomics model, where there is none."""
    rows, numbers, figures = [], Rows(), []
    for name in PAPERS_TWO:
        on = test.tested[name]
        models = {
            model: heads[name]
            for model, heads in scores.items()
            if model in (network, RADIOMICS) and name in heads
        }
        found = {model: measured(on, score_NR, how) for model, score_NR in models.items()}
        for model, its in found.items():
            numbers.add(its, task=name, model=model, **counts(on))
            rows.append([*names(name, on), model, *(its[it] for it in MEASURES)])
        if not found:
            why = "no training has labels of both classes: not trained"
            rows.append([*names(name, on), network, *[why] * len(MEASURES)])
        if len(models) == 2:
            apart = differences(on, models[network], models[RADIOMICS], how)
            numbers.add(apart, task=name, model=f"{network} minus {RADIOMICS}", **counts(on))
            rows.append([*names(name, on), "difference", *(apart[it] for it in MEASURES)])
        rows.append([TASKS[name].title, "paper’s cohort", "paper’s network", *papers(name)])
        figures.append(_figure(name, on, found, models, how, out))
    numbers.write(out / TABLE)
    return Section(
        title="Table 2 and Figure 3: network and radiomics",
        text=[*_absent(absent)],
        tables=[
            Table(
                caption="Test part, per image, threshold 0.5: mean ± SD over the repeats of a "
                "model, with the 95 % interval of the mean over draws of whole patients. "
                "Differences are network minus radiomics on the same draws, with two-sided p of no "
                "difference, which are not adjusted for the number of measures. ALNM is measured "
                "on malignant lesions. The paper’s figures are of another cohort, as reference "
                f"only; its radiomics had an AUC of {PAPER_RADIOMICS} for malignancy.",
                columns=["Task", "Rows", "Model", *TITLES.values()],
                rows=rows,
                file=TABLE,
            )
        ],
        figures=[it for it in figures if it is not None],
    )


def counts(on: TaskRows) -> Json:
    """On how many rows a task is measured."""
    return {"rows": len(on.truth_N), "positive": int(on.truth_N.sum()), "patients": on.patients}


def names(name: str, on: TaskRows) -> list[Cell]:
    """The first cells of a row: the task, and on how many rows."""
    of = "{positive} positive of {rows}; {patients} patients".format(**counts(on))
    return [TASKS[name].title, of]


def papers(name: str) -> Iterator[str]:
    """The paper's figures in the order of `MEASURES`; it gives three in its text."""
    figures = paper_figures(name, {"target": TASKS[name].head.target}) or ()
    known = dict(zip(("roc_auc", "sensitivity", "specificity"), figures, strict=False))
    for measure in MEASURES:
        yield f"{known[measure]:.3f}" if measure in known else "–"


def _absent(absent: str | None) -> Sequence[str]:
    return () if absent is None else (f"There is no radiomics model beside the network: {absent}",)


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
