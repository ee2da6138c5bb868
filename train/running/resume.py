"""A training that was interrupted: what it left in OUT, and how it goes on from there."""

from __future__ import annotations

import csv
import fcntl
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

import torch
import yaml
from lightning.pytorch.loggers import CSVLogger

from sonode.console import UserError

RUN = "run"  # Lightning's own files, inside OUT
LAST = "last.ckpt"  # the state after the last whole epoch, inside RUN


def lock(out: Path) -> IO[str]:
    """Hold OUT until the file is closed or the process ends, however it ends.

    Raises UserError: another training holds it; two would write over each other's checkpoints.
    """
    (out / RUN).mkdir(parents=True, exist_ok=True)
    file = (out / RUN / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(
            f"--out {out}: another training uses it; wait for it, stop it, or give another folder"
        ) from error
    return file


def forget_untrained(out: Path, record: Path) -> None:
    """Remove what a training wrote that ended before its first whole epoch: nothing is lost."""
    if not (out / RUN / LAST).exists():
        shutil.rmtree(out / RUN, ignore_errors=True)
        record.unlink(missing_ok=True)
        with suppress(OSError):  # it holds something else
            out.rmdir()


def precision_of(record: Path) -> str | None:
    """The precision that the run of this record began with; None where it does not say."""
    with suppress(OSError, yaml.YAMLError, KeyError, TypeError):  # refused later, by name
        return str(yaml.safe_load(record.read_text())["fit"]["trainer"]["precision"])
    return None


def epochs_of(last: Path) -> int:
    """How many whole epochs that checkpoint has seen. Raises UserError: the file is damaged."""
    try:
        state = torch.load(last, weights_only=True, map_location="cpu")
        return int(state["epoch"]) + 1
    except Exception as error:  # whatever an unpickler meets in a torn file
        raise UserError(
            f"--out {last.parents[1]}: its {RUN}/{LAST} is damaged; delete {RUN}/ to start again"
        ) from error


def keep_log(logger: CSVLogger, epochs_done: int) -> None:
    """Log the rows of the kept epochs again: a CSVLogger deletes the previous file.

    Rows of the interrupted epoch are left out, since it is trained again.
    """
    try:
        text = (Path(logger.log_dir) / "metrics.csv").read_text()
    except FileNotFoundError:
        return
    for row in csv.DictReader(text.splitlines()):
        if int(row["epoch"]) < epochs_done:
            step = int(row.pop("step"))
            logger.log_metrics({name: _number(value) for name, value in row.items() if value}, step)
    logger.save()


def _number(text: str) -> float:
    """As it was written: an epoch is a whole number."""
    return int(text) if text.isdecimal() else float(text)
