"""Runs Lightning's command line: a mistake is a `UserError`, and its own warnings are silent."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from contextlib import ExitStack

import yaml
from jsonargparse import ArgumentError, set_loader

from sonode.console import UserError
from train.data.datamodule import CohortData
from train.fitting.task import MultiTask
from train.running.arguments import joined_cohorts, load_yaml
from train.running.cli import TrainCLI


def run(arguments: list[str], kind: type[TrainCLI] = TrainCLI) -> TrainCLI:
    """Run `fit`, `validate` or `test` with Lightning's arguments; `kind` may do another thing.

    Raises UserError: an unknown or unreadable setting, named with the reason.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):  # the seed stands in a line of ours
        logging.getLogger(name).setLevel(logging.WARNING)
    # Crops are cached in memory, so loader processes would only copy them about.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")  # so it is when resuming
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own
    # Of the processes of DDP each runs the command line that the first was called with.
    warnings.filterwarnings("ignore", ".*args parameter is intended to run from within Python.*")
    set_loader("yaml", load_yaml, (yaml.YAMLError,))
    try:
        with ExitStack() as held:
            return kind(
                *(held, arguments[0]),
                MultiTask,
                CohortData,
                args=joined_cohorts(arguments),
                save_config_callback=None,  # before_fit keeps it, to compare on resuming
                trainer_defaults={
                    "enable_progress_bar": sys.stderr.isatty(),
                    "enable_model_summary": False,
                    "use_distributed_sampler": False,  # EpochSampler does it
                    "devices": 1,  # with more, the batch that a step sees grows: to be asked for
                },
                parser_kwargs={
                    "prog": "sonode train",
                    "exit_on_error": False,
                    "allow_abbrev": False,
                },
            )
    except ArgumentError as error:
        text = " ".join(str(error).split()).rstrip(".").replace("`fit.", "`").replace('"fit.', '"')
        text = re.sub('^(Parser key "config"|Problems parsing config):', "--config:", text)
        raise UserError(f"{text}; `sonode train {arguments[0]} --help` lists them all") from error
    except SystemExit as error:
        # How Lightning ends at Ctrl-C (1) and at a SIGTERM (none), its checkpoints safe.
        if error.code in (1, None):
            raise KeyboardInterrupt from None
        raise
