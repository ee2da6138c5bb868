"""Pages that are generated from the code at each build, so that they cannot drift from it."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from batch.results import schema
from batch.storage.errors import StorageError
from handlers.errors import RowError
from sonode import command_line

GENERATED = "<!-- Generated from the code by docs/reference.py. -->\n\n"


def write(folder: Path) -> None:
    """Write commands.md, errors.md and parquet.md into `folder`."""
    folder.mkdir(exist_ok=True)
    for name, make in (("commands", commands), ("errors", codes), ("parquet", columns)):
        (folder / f"{name}.md").write_text(GENERATED + make())


def commands() -> str:
    """Every command with its arguments and options, from their help texts."""
    command = typer.main.get_command(command_line.app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="sonode")
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)  # its lines are cut off
    return text.replace("# `sonode`", "# Commands", 1)


def codes() -> str:
    """Every code of a failed row, from the classes that carry it."""
    text = (
        "# Error codes\n\n"
        "Codes are stable. Messages name field, value and remedy. They never repeat what could\n"
        "identify a patient.\n\n## Requests, and rows of the batch\n\n"
        "| status | code | stage | meaning |\n|---|---|---|---|\n"
    )
    for error in RowError.__subclasses__():
        text += f"| {error.status} | `{error.code}` | {error.stage} | {summary(error)} |\n"
    text += "\n## Rows of the batch only\n\n| code | meaning |\n|---|---|\n"
    for fault in (StorageError, *StorageError.__subclasses__()):
        if "code" in vars(fault):  # else it has its parent's
            text += f"| `{fault.code}` | {summary(fault)} |\n"
    text += (
        "| `preprocess_timeout` | The image was not decoded within `--row-timeout`. |\n"
        f"| `{schema.NOT_REACHED}` | The run ended before the row's turn. |\n"
    )
    return text


def columns() -> str:
    """Every column of the batch's results, from their schema."""
    text = (
        "# Columns of the results\n\n"
        "`HEAD` stands for the name of a head. `HEAD_distribution` exists only for heads with\n"
        "more than two labels, heat maps only with `--explain`. The manifest's own columns\n"
        "come first.\n\n| column | type |\n|---|---|\n"
    )
    for field in schema.fields({"HEAD": ("a", "b", "c")}, with_heatmaps=True):
        text += f"| `{field.name}` | {field.type} |\n"
    return text


def summary(thing: type) -> str:
    """The first line of its docstring."""
    return (thing.__doc__ or "").partition("\n")[0]
