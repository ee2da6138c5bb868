"""The commands of `train`; heavy imports stay inside the functions.

Start at `mount`. May import all of `train`, inside a command.
"""

from __future__ import annotations

import typer

from train.commands import data, evidence, training


def mount(app: typer.Typer) -> None:
    """Add the commands of `train` to `app`."""
    app.command(rich_help_panel="Data")(data.phantom)
    app.add_typer(data.importers, name="import", rich_help_panel="Data")
    app.command(rich_help_panel="Data")(data.describe)
    app.command(
        rich_help_panel="Train",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
    )(training.train)
    app.command(rich_help_panel="Train")(training.margin)
    app.command(rich_help_panel="Evidence")(evidence.evaluate)
    app.command(rich_help_panel="Evidence")(evidence.external)
    app.command(rich_help_panel="Evidence")(evidence.checklists)
    app.command(rich_help_panel="Evidence")(training.ablate)
    for command in (evidence.radiomics, evidence.versus, evidence.paper):
        app.command(rich_help_panel="Evidence")(command)
