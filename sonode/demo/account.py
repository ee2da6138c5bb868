"""What the demo keeps account of, and how it runs a command of sonode."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from sonode.console import UserError, run_sonode, say

NAME, VERSION = "breast_us", "1.0"
MODEL = f"{NAME}-{VERSION}.mar"
BUCKET = "studies"


@dataclass
class Account:
    """What the closing table says."""

    out: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    step: int = 0

    def begin(self, title: str) -> None:
        """Announce the next step."""
        self.step += 1
        say(f"\n== {self.step}. {title}")

    def add(self, what: str, where: Path | str, figure: str) -> None:
        """Add a line to the closing table; what lies in OUT is named from there."""
        if isinstance(where, Path) and where.is_relative_to(self.out):
            where = where.relative_to(self.out)
        self.rows.append((what, str(where), figure))


def sonode(*arguments: str | Path, allowed: tuple[int, ...] = (0,)) -> int:
    """Run a command of sonode as a user would, shown before it runs."""
    say("$ " + shlex.join(["sonode", *map(str, arguments)]))
    code = run_sonode([*map(str, arguments)])
    if code not in allowed:
        raise UserError(f"sonode {arguments[0]}: exit code {code}; see its message above")
    return code
