"""A group of commands whose help is whole: under headings, and no line cut off."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class CommandGroup(TyperGroup):
    """Lists its commands by their `rich_help_panel`, in the order of declaration.

    Typer itself would need rich for that, whose import doubles the time of `--help`.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each heading; a long line is wrapped."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None) or "Commands"
            line = command.get_short_help_str(limit=1000)
            sections.setdefault(heading, []).append((name, line))
        width = max(map(len, self.commands))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), line) for name, line in rows])
