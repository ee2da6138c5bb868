"""The machine that a benchmark ran on, and tables that name it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sonode import console

Compared = tuple[str, str, str]
"""What a benchmark is for: what is compared, what was found, and its goal if it has one."""

_SETS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 bf16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}  # what OpenVINO and oneDNN choose by, best first


def cpu() -> str:
    """Cores that this process may use, their model, and the best instruction set that counts."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    flags = set(re.findall(r"\w+", "".join(re.findall(r"flags\s*:(.+)", text)[:1])))
    known = [name for flag, name in _SETS.items() if flag in flags][:1]
    if held := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        known.append(f"held to {held}")
    name = model[1].strip() if model else platform.machine()
    return ", ".join([f"{len(os.sched_getaffinity(0))} cores of {name}", *known])


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """As `console.table`, with the machine below the title."""
    console.table(f"{title}\n{cpu()}", columns, rows)
