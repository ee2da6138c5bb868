"""The commands of `train`; heavy imports stay inside the functions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from sonode.command_group import CommandGroup
from sonode.console import UserError, say, table

if TYPE_CHECKING:
    from train.cohorts.cohort import Cohort

importers = typer.Typer(cls=CommandGroup, help="Make a cohort from a public or your own data set.")

OUT = typer.Argument(help="Folder for the cohort; images stay where they are.")
BOOTSTRAP = typer.Option(2000, min=100, help="Bootstrap draws of patients for each interval.")
AGGREGATE = typer.Option(
    "mean", help="Score of a lesion or patient with several images: their mean or maximum."
)
NAME = typer.Option("cohort", help="Name of the cohort in cards and reports.")
DROP_FAULTY = typer.Option(
    False, "--drop-faulty", help="Leave out faulty rows and list them, instead of stopping."
)

COLUMN = typer.Option(
    [],
    metavar="NAME=KIND",
    help="Whether an extra column is a `number` or a `label`; repeatable.",
)


def mount(app: typer.Typer) -> None:
    """Add the commands of `train` to `app`."""
    app.command(rich_help_panel="Data")(phantom)
    app.add_typer(importers, name="import", rich_help_panel="Data")
    app.command(rich_help_panel="Data")(describe)
    app.command(
        rich_help_panel="Train",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
    )(train)
    app.command(rich_help_panel="Train")(margin)
    for command in (evaluate, external, checklists, ablate, radiomics, versus, paper):
        app.command(rich_help_panel="Evidence")(command)


def phantom(
    out: Path = typer.Argument(help="A new folder for the cohort."),
    patients: int = typer.Option(160, min=1, help="Number of patients, two to four images each."),
    seed: int = typer.Option(0, min=0, help="The same seed gives the same bytes."),
) -> None:
    """Make a synthetic cohort with every label; no patient is in it."""
    from train.importers.all_importers import import_voc
    from train.importers.phantom import write_phantom

    write_phantom(out, patients, seed)
    cohort = import_voc(out, out, name=f"phantom-{patients}-{seed}", synthetic=True)
    say(f"synthetic cohort of {patients} patients, {len(cohort.table)} images: {out}")


@importers.command()
def csv(
    source: Path = typer.Argument(
        metavar="SRC", help="A .csv or .parquet with patient_id, image and any labels."
    ),
    out: Path = OUT,
    name: str = NAME,
    drop_faulty: bool = DROP_FAULTY,
    column: list[str] = COLUMN,
) -> None:
    """One table; boxes in it, or LabelImg files beside the images."""
    from train.importers.all_importers import import_csv

    report(import_csv(source, out, name=name, drop_faulty=drop_faulty, kinds=kinds_of(column)))


@importers.command()
def voc(
    source: Path = typer.Argument(
        metavar="SRC", help="Folder with images/, annotations/*.xml and labels.csv."
    ),
    out: Path = OUT,
    name: str = NAME,
    drop_faulty: bool = DROP_FAULTY,
    column: list[str] = COLUMN,
) -> None:
    """LabelImg's Pascal VOC boxes with a table of labels."""
    from train.importers.all_importers import import_voc

    report(import_voc(source, out, name=name, drop_faulty=drop_faulty, kinds=kinds_of(column)))


@importers.command()
def yolo(
    source: Path = typer.Argument(
        metavar="SRC", help="Folder with images/, annotations/*.txt and labels.csv."
    ),
    out: Path = OUT,
    name: str = NAME,
    drop_faulty: bool = DROP_FAULTY,
    column: list[str] = COLUMN,
) -> None:
    """LabelImg's YOLO boxes with a table of labels."""
    from train.importers.all_importers import import_yolo

    report(import_yolo(source, out, name=name, drop_faulty=drop_faulty, kinds=kinds_of(column)))


@importers.command()
def busi(
    source: Path = typer.Argument(metavar="SRC", help="BUSI's top folder."),
    out: Path = OUT,
    drop_faulty: bool = DROP_FAULTY,
) -> None:
    """BUSI: boxes from masks, malignancy by folder, ALNM missing."""
    from train.importers.all_importers import import_busi

    report(import_busi(source, out, drop_faulty=drop_faulty))


@importers.command()
def bus_bra(
    source: Path = typer.Argument(metavar="SRC", help="Folder with bus_data.csv, Images/, Masks/."),
    out: Path = OUT,
    drop_faulty: bool = DROP_FAULTY,
) -> None:
    """BUS-BRA: malignancy by biopsy, histology and BI-RADS, ALNM missing."""
    from train.importers.all_importers import import_bus_bra

    report(import_bus_bra(source, out, drop_faulty=drop_faulty))


@importers.command()
def breast(
    source: Path = typer.Argument(metavar="SRC", help="Folder with the .xlsx and the PNGs."),
    out: Path = OUT,
    drop_faulty: bool = DROP_FAULTY,
) -> None:
    """BrEaST-Lesions-USG: boxes from tumour masks, age and BI-RADS, ALNM missing."""
    from train.importers.all_importers import import_breast

    report(import_breast(source, out, drop_faulty=drop_faulty))


def kinds_of(columns: list[str]) -> dict[str, str]:
    """NAME=KIND, as given by --column, as name -> kind.

    Raises:
        UserError: no `number` or `label`, or a name twice.
    """
    kinds: dict[str, str] = {}
    for text in columns:
        name, _, kind = text.partition("=")
        if kind not in ("number", "label") or name in kinds:
            raise UserError(f"--column {text}: give each NAME=number or NAME=label once")
        kinds[name] = kind
    return kinds


def report(cohort: Cohort) -> None:
    """Print the size of a cohort and its labels, the missing ones too."""
    rows = cohort.table
    say(f"cohort of {cohort.patients}, {len(rows)} lesion boxes: {cohort.folder}")
    for column, labels in (
        *((name, rows[name]) for name in ("malignant", "alnm")),
        ("n_nodes", rows["n_nodes"] > 0),
    ):
        say(
            f"  {column}: {int((labels == True).sum())} positive, "  # noqa: E712
            f"{int((labels == False).sum())} negative, {int(labels.isna().sum())} missing"  # noqa: E712
        )
    for kind, columns in (("number", cohort.covariates), ("label", cohort.categorical)):
        for column in columns:
            values = rows[column]
            say(
                f"  {column}: {kind}, {values.nunique()} values, {int(values.isna().sum())} missing"
            )
    for column in cohort.partitions:
        use = "training uses it" if column == "split" else f"for --data.folds {column}"
        say(f"  {column}: partition, {rows[column].nunique()} parts; {use}")


def describe(
    cohort: Path = typer.Argument(help="Folder of a cohort."),
    csv: Path | None = typer.Option(None, help="Also write the table to this file."),
) -> None:
    """The paper's Table 1: patients by malignancy and by lymph nodes, with p-values."""
    from train.cohorts.cohort import load_cohort
    from train.cohorts.describe import NOTES, table_one

    loaded = load_cohort(cohort)
    characteristics = table_one(loaded)
    kind = "SYNTHETIC cohort, no patient in it" if loaded.synthetic else "cohort"
    names = [
        what + (", " if what and value else "" if what else "  ") + value
        for what, value in zip(
            characteristics["characteristic"], characteristics["value"], strict=True
        )
    ]
    for title, columns in (
        (f"{kind}: {loaded.name}", ["all", "benign", "malignant", "p malignancy"]),
        ("malignant patients by axillary lymph nodes (ALN)", ["ALN-", "ALN+", "p ALN"]),
    ):
        cells = characteristics[columns].values.tolist()
        rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
        table(title, ["", *columns], rows)
    for note in NOTES:
        say(note)
    if csv is not None:
        characteristics.to_csv(csv, index=False)


_TRAIN_HELP = """\
Usage: sonode train {fit,folds,validate,test} --config YAML --data.cohort DIR --out DIR

  fit       train; the same command resumes an interrupted run
  folds     measure by folds of patients (--data.folds K or COLUMN; else 5);
            --refit trains one more network on every patient
  validate  metrics of OUT's checkpoint on the validation part
  test      metrics of OUT's checkpoint on the test part

Every setting can be given as --group.name=value; `sonode train fit --help`
lists them all.
Configurations: train/configs/paper.yaml, train/configs/demo.yaml"""


def train(context: typer.Context) -> None:
    """Train a network by a YAML configuration, by folds of patients too, validate or test it."""
    arguments = context.args
    if not arguments or arguments[0] in ("--help", "-h"):
        say(_TRAIN_HELP)
        return
    if arguments[0] == "folds":
        from train.evidence.folds import train_folds

        refit = "--refit" in arguments
        train_folds([it for it in arguments[1:] if it != "--refit"], refit=refit)
        return
    if arguments[0] not in ("fit", "validate", "test"):
        raise UserError(f"train {arguments[0]}: unknown step; give fit, folds, validate or test")
    from train.fitting.cli import run

    run(arguments)


def ablate(
    cohort: Path = typer.Argument(help="Folder of a cohort with both labels."),
    out: Path = typer.Argument(help="Folder for the runs; finished runs are not repeated."),
    seeds: int = typer.Option(5, min=2, help="Runs per variant."),
    config: Path | None = typer.Option(
        None, help="YAML for each run; default: configs/ablation.yaml."
    ),
) -> None:
    """Single tasks, multi-task, hierarchical loss, chain, max-constraint: the same split."""
    from train.evidence import ablation

    summary = ablation.ablate(cohort, out, seeds=seeds, config=config or ablation.CONFIG)
    ablation.show(summary)
    say(f"table: {out / 'ablation.csv'}")


def margin(
    cohort: Path = typer.Argument(help="Folder of a cohort with both labels."),
    out: Path = typer.Argument(help="Folder for the runs; finished runs are not repeated."),
    margins: list[float] = typer.Option(
        [0.0, 0.05, 0.1, 0.2, 0.3], min=0, max=1, help="Margins to try."
    ),
    weights: list[float] = typer.Option(
        [0.05], min=0, help="Weights of the loss in the total to try, with each margin."
    ),
    seeds: int = typer.Option(3, min=1, help="Runs per margin and weight."),
    config: Path | None = typer.Option(
        None, help="YAML for each run; default: configs/ablation.yaml."
    ),
) -> None:
    """Search margin and weight of the hierarchical loss on the validation part."""
    from train.evidence import ablation

    found = ablation.search_margin(
        cohort, out, margins, seeds=seeds, config=config or ablation.CONFIG, weights=weights
    )
    columns = ("margin", "weight", *ablation.MEASURES)
    rows = [
        ["undefined" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in columns]
        for row in found.to_dict("records")
    ]
    table(f"Validation part, mean over {seeds} seeds, best first", columns, rows)
    say(f"table: {out / 'margins.csv'}")


def radiomics(
    cohort: Path = typer.Argument(help="Folder of a cohort."),
    out: Path = typer.Argument(help="A new folder for features, forests and report."),
    features: Literal["93", "102"] = typer.Option(
        "93", help="102 adds nine shape features, which depend on the box only."
    ),
    split_seed: int = typer.Option(0, help="Seed of the split; the same as for the network."),
    seed: int = typer.Option(
        0, min=0, max=2**32 - 1, help="Seed of Boruta, the forests and the bootstrap."
    ),
    bootstrap: int = BOOTSTRAP,
    reuse: Path | None = typer.Option(
        None, help="OUT of a previous run; features of equal boxes are reused."
    ),
) -> None:
    """The paper's baseline: radiomics features, Boruta, a random forest per head; same report."""
    from train.radiomics.command import run

    run(
        cohort,
        out,
        split_seed=split_seed,
        seed=seed,
        feature_set=features,
        reuse=reuse,
        bootstrap=bootstrap,
    )


def evaluate(
    checkpoint: Path = typer.Argument(help="The `checkpoint` folder of a training."),
    cohort: Path = typer.Argument(help="Folder of the cohort."),
    out: Path = typer.Argument(help="A new folder for metrics, predictions and report."),
    part: Literal["val", "test", "all"] = typer.Option(
        "test", help="Part of the training's split; `all` for another cohort."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the bootstrap."),
    bootstrap: int = BOOTSTRAP,
    aggregate: Literal["mean", "max"] = AGGREGATE,
    roi_jitter: bool = typer.Option(
        False,
        "--roi-jitter",
        help="Also score boxes moved and grown by 5 and 10 %: four times more.",
    ),
) -> None:
    """Measure a checkpoint on a cohort: intervals, plots and one HTML report."""
    from train.evidence.report import check_out, show, write_evaluation
    from train.evidence.saliency import gallery, profile
    from train.fitting.predictions import predict

    check_out(out)
    found = predict(checkpoint, cohort, part)
    moved = []
    if roi_jitter:
        from train.evidence.jitter import jitter
        from train.evidence.measures import Resampling

        moved = jitter(checkpoint, cohort, found, Resampling(resamples=bootstrap, seed=seed))
    metrics = write_evaluation(
        found,
        out,
        gallery(found),
        profile(found),
        bootstrap=bootstrap,
        seed=seed,
        aggregation=aggregate,
        jitter=moved,
    )
    show(metrics, f"{part} part")
    say(f"report: {out / 'report.html'}")


def external(
    checkpoint: Path = typer.Argument(help="The `checkpoint` folder of a training."),
    cohort: Path = typer.Argument(help="Folder of the cohort that it was trained on."),
    out: Path = typer.Argument(help="A new folder for numbers, predictions and the page."),
    cohorts: list[str] = typer.Option(
        [], "--cohort", metavar="NAME=FOLDER", help="An external cohort; repeatable."
    ),
    recalibrate: int = typer.Option(
        50, min=1, help="Patients of each external cohort that a recalibration takes."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the bootstrap, the choice and the tests."),
    bootstrap: int = BOOTSTRAP,
    aggregate: Literal["mean", "max"] = AGGREGATE,
) -> None:
    """Measure a checkpoint on cohorts of other hospitals beside its own test part."""
    from train.evidence.external_report import PAGE, named, run, show

    found = run(
        checkpoint,
        cohort,
        out,
        named(cohorts),
        recalibrate=recalibrate,
        resamples=bootstrap,
        seed=seed,
        aggregation=aggregate,
    )
    show(found)
    say(f"page: {out / PAGE}")


def checklists(
    evidence: Path = typer.Argument(help="OUT of `sonode evaluate`."),
    out: Path = typer.Argument(help="A new folder for the page and a CSV of each guideline."),
    external: Path | None = typer.Option(None, help="OUT of `sonode external`."),
) -> None:
    """CLAIM 2024, TRIPOD+AI and STARD-AI, filled in where the software knows."""
    from train.evidence.checklists import PAGE, run

    run(evidence, out, external)
    say(f"page: {out / PAGE}")


def versus(
    first: Path = typer.Argument(help="OUT of `sonode evaluate` or `sonode radiomics`."),
    second: Path = typer.Argument(help="A second one, on the same images."),
    json_file: Path | None = typer.Option(
        None, "--json", help="Also write the comparison to this file."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the bootstrap."),
    aggregate: Literal["mean", "max"] = AGGREGATE,
) -> None:
    """Compare two models on the same images: AUC, sensitivity and specificity, with p-values."""
    from train.evidence.versus import show, write
    from train.evidence.versus import versus as run

    found = run(first, second, seed=seed, aggregation=aggregate)
    show(found)
    if json_file is not None:
        write(found, json_file)


def paper(
    cohort: Path = typer.Argument(help="Folder of a cohort."),
    out: Path = typer.Argument(help="Folder for page and runs; finished runs are not repeated."),
    config: Path | None = typer.Option(
        None, help="YAML for each network; default: configs/ablation.yaml. The paper's: paper.yaml."
    ),
    seeds: int = typer.Option(5, min=1, help="Repeats of each model."),
    quick: bool = typer.Option(
        False, "--quick", help="Two repeats of small networks: shows that it works, in minutes."
    ),
    bootstrap: int = BOOTSTRAP,
) -> None:
    """The paper on your cohort: trains what it needs; one page of its tables and figures."""
    from train.evidence import ablation
    from train.paper.command import run

    run(
        cohort,
        out,
        config=config or ablation.CONFIG,
        seeds=seeds,
        bootstrap=bootstrap,
        quick=quick,
    )
