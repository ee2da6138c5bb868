"""Table 3, Supplementary Table S3 and Table 4: variants of the network, and the nodal burden."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sonode.console import counted
from train.experiments.ablation import VARIANTS
from train.experiments.ablation_table import MEASURES as SEARCHED
from train.measures.measure import Resampling
from train.paper.performance import (
    OF_UNITS,
    SIZE,
    counts,
    names,
    papers,
    per_unit,
    without_radiomics,
)
from train.paper.sections import Cell, Rows, Section, Table
from train.repeats.measured import MEASURES, TITLES, adjust, differences, measured
from train.repeats.runs import Scores
from train.repeats.variants import CHAIN, PAPERS_TWO, RADIOMICS, TASKS, HeldOut

TABLE_3, TABLE_S3, TABLE_4 = (f"tables/table-{it}.csv" for it in ("3", "s3", "4"))
GRID = "tables/search.csv"
_BURDENS = {
    name: "1 node or more (ALNM)" if name == "alnm" else task.title
    for name, task in TASKS.items()
    if task.head.parent is not None
}
_UNITS = (
    "Test part, threshold 0.5: mean ± SD over the repeats, with the 95 % interval of the mean over "
    f"draws of whole patients. {OF_UNITS}"
)


def variants_section(
    test: HeldOut, scores: Scores, searched: pd.DataFrame | None, how: Resampling, out: Path
) -> Section:
    """Table 3 and S3, with the grid of the loss where it was searched."""
    rows: list[list[Cell]] = []
    numbers = Rows()
    for name in PAPERS_TWO:
        on = test.tested[name]
        models = [it for it in VARIANTS if name in scores.get(it, {})]
        for per, of, its in per_unit(test, name, {model: scores[model][name] for model in models}):
            for model, score_NR in its.items():
                found = measured(of, score_NR, how)
                numbers.add(found, task=name, per=per, model=model, **counts(of))
                title, size = names(name, of)
                rows.append([title, per, size, model, *(found[it] for it in MEASURES)])
        if not models:
            title, size = names(name, on)
            rows.append([title, "image", size, "none", *["not trained"] * len(MEASURES)])
    numbers.write(out / TABLE_3)
    table_3 = Table(
        caption=f"Table 3. {_UNITS} ALNM is measured on malignant lesions.",
        columns=["Task", "Per", SIZE, "Variant", *TITLES.values()],
        rows=rows,
        file=TABLE_3,
    )
    tables = [table_3, _pairs(test, scores, how, out)]
    if searched is not None:
        searched.to_csv(out / GRID, index=False)
        tables.append(_grid(searched, test.sizes["val"]))
    text = [
        f"{name}: not trained, since the cohort lacks a label that it learns from."
        for name in VARIANTS
        if name not in scores
    ]
    return Section(title="Table 3 and S3: ablations", text=text, tables=tables)


def _pairs(test: HeldOut, scores: Scores, how: Resampling, out: Path) -> Table:
    """All pairs of variants, with p adjusted over the pairs of a task, unit and measure, too."""
    rows: list[list[Cell]] = []
    numbers = Rows()
    for name in PAPERS_TWO:
        models = [it for it in VARIANTS if name in scores.get(it, {})]
        for per, of, own in per_unit(test, name, {model: scores[model][name] for model in models}):
            found = {
                (first, second): differences(of, own[first], own[second], how)
                for first, second in itertools.combinations(models, 2)
            }
            for measure in MEASURES:
                adjust([its[measure] for its in found.values()])
            for (first, second), its in found.items():
                numbers.add(its, task=name, per=per, first=first, second=second, **counts(of))
                shown = (its[it] for it in MEASURES)
                rows.append([TASKS[name].title, per, first, second, *shown])
    numbers.write(out / TABLE_S3)
    return Table(
        caption="Table S3. First minus second, on the same draws of patients, with two-sided p of "
        "no difference: as it is, and adjusted by Holm over all pairs of one task, unit "
        "and measure.",
        columns=["Task", "Per", "First", "Second", *TITLES.values()],
        rows=rows,
        file=TABLE_S3,
    )


def _grid(searched: pd.DataFrame, validation: str) -> Table:
    def shown(value: float) -> str:
        return "undefined" if pd.isna(value) else f"{value:.3f}"

    return Table(
        caption="Grid of margin and λ (weight of the hierarchical loss in the total), validation "
        f"part ({validation}), best ALNM first; mean over its repeats. An AUC is undefined where "
        "validation has one class alone. Type 1 and 2 are shares of its images. The networks "
        "above have the paper’s margin 0.1 and λ 0.05, whatever is best here.",
        columns=["Margin", "λ", "Malignancy AUC", "ALNM AUC", "Type 1", "Type 2"],
        rows=[
            [f"{it['margin']:g}", f"{it['weight']:g}", *(shown(it[name]) for name in SEARCHED)]
            for it in searched.to_dict("records")
        ],
        file=GRID,
    )


def burden_section(
    test: HeldOut,
    scores: Scores,
    why: Mapping[tuple[str, str], str],
    absent: str | None,
    how: Resampling,
    out: Path,
) -> Section:
    """Table 4: one chain, the paper's separate networks, and radiomics.

    `why`: why a variant lacks a head; `absent`: why there is no radiomics model.
    """
    rows: list[list[Cell]] = []
    numbers = Rows()
    for name, title in _BURDENS.items():
        on = test.tested[name]
        models: Mapping[str, str] = {
            CHAIN: "one chain",
            f"single {name}": "separate network",
            RADIOMICS: RADIOMICS,
        }
        forest = absent or "training lacks labels of both classes"
        trained = {it: scores[it][name] for it in models if name in scores.get(it, {})}
        for per, of, its in per_unit(test, name, trained):
            for model, score_NR in its.items():
                found = measured(of, score_NR, how)
                numbers.add(found, task=name, per=per, model=model, **counts(of))
                size, values = names(name, of)[1], (found[it] for it in MEASURES)
                rows.append([title, per, size, models[model], *values])
        for model in [it for it in models if it not in trained]:
            reason = why.get((model, name), forest)
            none = {it: {"value": None, "reason": reason} for it in MEASURES}
            numbers.add(none, task=name, per="image", model=model, **counts(on))
            if model == RADIOMICS and absent is not None:
                continue  # said once, above the table
            lost: list[Cell] = [f"not trained: {reason}", *["–"] * (len(MEASURES) - 1)]
            rows.append([title, "image", names(name, on)[1], models[model], *lost])
        rows.append([title, "", "paper’s cohort", "paper’s network", *papers(name)])
    numbers.write(out / TABLE_4)
    return Section(
        title="Table 4: nodal burden",
        text=[_kept(test), *without_radiomics(absent)],
        tables=[
            Table(
                caption=f"{_UNITS} Malignant lesions. In the chain a probability is a product and "
                "never above that of fewer nodes, so that at 0.5 it may call fewer lesions "
                "positive than a separate network. The paper’s figures are of another cohort, as "
                "reference only.",
                columns=["Burden", "Per", SIZE, "Model", *TITLES.values()],
                rows=rows,
                file=TABLE_4,
            )
        ],
    )


def _kept(test: HeldOut) -> str:
    """How many malignant lesions there are, and on how many each burden is learned and measured."""
    found = []
    for part, its in (("training", test.learned), ("test", test.tested)):
        malignant = its["malignancy"]
        patients = malignant.patient_N[malignant.truth_N].tolist()
        found.append(
            f"Malignant lesions of the {part} part: {counted(len(patients), 'image')} of "
            f"{counted(len(set(patients)), 'patient')}; kept are those with the label (positive of "
            "all images; patients): "
            + ", ".join(f"{title} {names(name, its[name])[1]}" for name, title in _BURDENS.items())
            + "."
        )
    return " ".join(found)
