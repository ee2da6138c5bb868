"""Commands that train networks: one, by folds, an ablation, a search of the margin."""

from __future__ import annotations

import math
from argparse import ArgumentError, ArgumentParser
from pathlib import Path

import typer

from sonode.console import UserError, counted, say, table

_TRAIN_HELP = """\
Usage: sonode train {fit,folds,validate,test} --config YAML --data.cohort DIR --out DIR

  fit       train; the same command resumes an interrupted run
  folds     measure by folds of patients (--data.folds K or COLUMN; else 5);
            --refit trains what goes into service, on every patient;
            --members M averages M networks of different seeds, for each fold
            and on every patient (3 with --refit, else 1)
  validate  metrics of OUT's checkpoint on the validation part
  test      metrics of OUT's checkpoint on the test part

Every setting can be given as --group.name=value; `sonode train fit --help`
lists them all.
Configurations: train/configs/paper.yaml, train/configs/demo.yaml"""


def train(context: typer.Context) -> None:
    """Train a network from a YAML file, also by folds of patients; validate or test it."""
    arguments = context.args
    if not arguments or arguments[0] in ("--help", "-h"):
        say(_TRAIN_HELP)
        return
    if arguments[0] == "folds":
        from train.experiments.folds import train_folds

        own = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        own.add_argument("--refit", action="store_true")
        own.add_argument("--members", type=int)
        try:
            given, rest = own.parse_known_args(arguments[1:])
        except ArgumentError as error:
            raise UserError(f"train folds: {error}; give --members a number") from error
        train_folds(rest, refit=given.refit, members=given.members)
        return
    if arguments[0] not in ("fit", "validate", "test"):
        raise UserError(f"train {arguments[0]}: unknown step; give fit, folds, validate or test")
    from train.running.command import run

    run(arguments)


def ablate(
    cohort: Path = typer.Argument(help="Folder of a cohort with both labels."),
    out: Path = typer.Argument(help="Folder for the runs; finished runs are not repeated."),
    seeds: int = typer.Option(5, min=2, help="Runs per variant."),
    config: Path | None = typer.Option(
        None, help="YAML for each run. Default: train/configs/ablation.yaml."
    ),
) -> None:
    """Compare single tasks, multi-task, hierarchical loss, chain, max-constraint on one split."""
    from train.experiments import ablation, ablation_table

    summary = ablation.ablate(cohort, out, seeds=seeds, config=config or ablation.CONFIG)
    ablation_table.show(summary)
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
        None, help="YAML for each run. Default: train/configs/ablation.yaml."
    ),
) -> None:
    """Search margin and weight of the hierarchical loss on the validation part."""
    from train.experiments import ablation
    from train.experiments.ablation_table import MEASURES
    from train.experiments.margin import search_margin

    found = search_margin(
        cohort, out, margins, seeds=seeds, config=config or ablation.CONFIG, weights=weights
    )
    columns = ("margin", "weight", *MEASURES)
    rows = [
        ["undefined" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in columns]
        for row in found.to_dict("records")
    ]
    table(f"Validation part, mean over {counted(seeds, 'seed')}, best first", columns, rows)
    say(f"table: {out / 'margins.csv'}")
