"""Commands that measure what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from sonode.console import UserError, say
from sonode.defaults import BOOTSTRAP_DRAWS

BOOTSTRAP = typer.Option(
    BOOTSTRAP_DRAWS, min=100, help="Bootstrap draws of patients for each interval."
)
AGGREGATE = typer.Option(
    "mean", help="Score of a lesion or patient with several images: their mean or maximum."
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
    from sonode.files.atomic import check_new
    from train.evidence.report import show, write_evaluation
    from train.evidence.saliency import gallery, profile
    from train.fitting.predictions import predict

    check_new(out)
    found = predict(checkpoint, cohort, part)
    moved = []
    if roi_jitter:
        from train.evidence.jitter import jitter
        from train.measures.measure import Resampling

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
    from train.external.report import PAGE, named, run, show

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
    evidence: Path = typer.Argument(
        help="OUT of `sonode evaluate`, or `evidence` of `sonode train folds`."
    ),
    out: Path = typer.Argument(help="A new folder for the page and a CSV of each guideline."),
    external: Path | None = typer.Option(None, help="OUT of `sonode external`."),
) -> None:
    """Fill in CLAIM 2024, TRIPOD+AI and STARD-AI where the software knows the answer."""
    from train.external.checklists import PAGE, run

    run(evidence, out, external)
    say(f"page: {out / PAGE}")


def radiomics(
    cohort: Path = typer.Argument(help="Folder of a cohort."),
    out: Path = typer.Argument(help="A new folder for features, forests and report."),
    features: Literal["93", "102"] = typer.Option(
        "93", help="102 adds nine shape features, which depend on the box only."
    ),
    split_seed: int = typer.Option(
        0, min=0, help="Seed of the split; the same as for the network."
    ),
    seed: int = typer.Option(
        0, min=0, max=2**32 - 1, help="Seed of Boruta, the forests and the bootstrap."
    ),
    bootstrap: int = BOOTSTRAP,
    reuse: Path | None = typer.Option(
        None, help="OUT of a previous run; features of equal boxes are reused."
    ),
) -> None:
    """Train the paper's baseline: radiomics, Boruta, a random forest per head; same report."""
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
    from train.comparing.versus import show, write
    from train.comparing.versus import versus as run

    if json_file is not None and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise UserError(f"--json {json_file}: give a file in a folder that is there")
    found = run(first, second, seed=seed, aggregation=aggregate)
    show(found)
    if json_file is not None:
        write(found, json_file)


def paper(
    cohort: Path = typer.Argument(help="Folder of a cohort."),
    out: Path = typer.Argument(help="Folder for page and runs; finished runs are not repeated."),
    config: Path | None = typer.Option(
        None,
        help="YAML for each network. Default: train/configs/ablation.yaml. The paper's: "
        "train/configs/paper.yaml.",
    ),
    seeds: int | None = typer.Option(
        None, min=1, help="Repeats of each model. Default: 5, and 2 with --quick."
    ),
    quick: bool = typer.Option(
        False, "--quick", help="Small networks, few repeats and draws: shows that it works."
    ),
    bootstrap: int | None = typer.Option(
        None,
        min=100,
        help=f"Bootstrap draws of patients for each interval. Default: {BOOTSTRAP_DRAWS}, and 200 "
        "with --quick.",
    ),
) -> None:
    """Make the paper's tables and figures from your cohort; trains what they need."""
    from train.experiments import ablation
    from train.paper.command import run

    run(
        cohort,
        out,
        config=config or ablation.CONFIG,
        seeds=seeds,
        bootstrap=bootstrap,
        quick=quick,
    )
