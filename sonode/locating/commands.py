"""The commands of `locating`; heavy imports stay inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from sonode.command_group import CommandGroup
from sonode.console import counted, say
from sonode.defaults import BOOTSTRAP_DRAWS

locate = typer.Typer(
    cls=CommandGroup, help="Propose RoIs for images without boxes.", rich_markup_mode=None
)


def mount(app: typer.Typer) -> None:
    """Add the commands of `locating` to `app`."""
    app.add_typer(locate, name="locate", rich_help_panel="Batch")


@locate.command()
def fit(
    cohort: Path = typer.Argument(help="Folder of a cohort; its boxes are what is learned."),
    out: Path = typer.Argument(help="A new folder for the locator."),
    *,
    epochs: int = typer.Option(12, min=1, help="Times that each image is seen."),
    size: int = typer.Option(256, min=64, max=1024, help="Longest side of its input, in pixels."),
    weights: str = typer.Option(
        "imagenet", help="Of its trunk at the start: imagenet (extra `weights`), none, or a file."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of weights, order and augmentation."),
    split_seed: int = typer.Option(0, min=0, help="Seed of the split by patient."),
) -> None:
    """Train a locator (a one-class detector) on the boxes of a cohort."""
    from sonode.locating import fit as fitting

    recipe = fitting.Recipe(size=size, epochs=epochs, weights=weights, seed=seed)
    card = fitting.fit(cohort, out, recipe, split_seed=split_seed)
    its = card.measured
    say(
        f"validation part, {counted(its['images'], 'image')}: IoU mean {its['iou_mean']:.3f}, "
        f"over 0.5 in {its['found']:.1%}; nothing is found below a confidence of "
        f"{card.min_confidence:.3f}"
    )
    say(f"locator: {out}")


@locate.command()
def evaluate(
    locator: Path = typer.Argument(help="OUT of `sonode locate fit`."),
    cohort: Path = typer.Argument(help="Folder of a cohort with drawn boxes."),
    out: Path = typer.Argument(help="A new folder for numbers and proposals."),
    *,
    part: Literal["val", "test", "all"] = typer.Option(
        "test", help="Part of the locator's split; `all` for another cohort."
    ),
    checkpoint: Path | None = typer.Option(
        None, help="Also its AUCs, on proposed and on drawn boxes: `checkpoint` of a training."
    ),
    bootstrap: int = typer.Option(BOOTSTRAP_DRAWS, min=100, help="Bootstrap draws of patients."),
    seed: int = typer.Option(0, min=0, help="Seed of the bootstrap."),
) -> None:
    """Measure a locator: IoU, FROC, and the AUC of proposed against drawn boxes."""
    from sonode.locating import evaluate as evaluating
    from train.measures.measure import Resampling

    how = Resampling(resamples=bootstrap, seed=seed)
    numbers = evaluating.evaluate(locator, cohort, out, part=part, checkpoint=checkpoint, how=how)
    evaluating.show(numbers)
    say(f"numbers: {out / evaluating.NUMBERS}")


@locate.command()
def propose(
    locator: Path = typer.Argument(help="OUT of `sonode locate fit`."),
    manifest: str = typer.Argument(help="A Parquet file or a folder of them; path or s3:// URI."),
    out: str = typer.Argument(help="A new Parquet file: the manifest to score; path or s3:// URI."),
    *,
    min_confidence: float | None = typer.Option(
        None, min=0, max=1, help="Less sure proposals are none. Default: the locator's own."
    ),
) -> None:
    """Propose a RoI for each row of a manifest that has none. Exit code 1: images failed."""
    from batch.storage import uris
    from sonode.locating.propose import propose as run

    counts = run(locator, *map(uris.argument, (manifest, out)), min_confidence=min_confidence)
    for status, count in counts.items():
        say(f"  {status:<24} {count}")
    say(f"manifest: {out}")
    raise typer.Exit(1 if counts["failed"] else 0)
