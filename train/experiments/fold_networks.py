"""The networks that `sonode train folds` trains: which, where each lies, and how long they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from model_def.checkpoint import CARD, read_card
from sonode.console import UserError, run_sonode, say
from train.cohorts.folds import Texts, fold_names
from train.data.datamodule import ALL
from train.running import resume
from train.running.exported import CHECKPOINT
from train.running.planned import FOLDS, Planned, measured, spoken

REFITS = "refits"  # of several members, inside OUT, until they are one checkpoint


class Job(NamedTuple):
    """A network to train."""

    fold: str
    seed: int
    out: Path
    what: str

    @property
    def checkpoint(self) -> Path:
        """Its folder."""
        return self.out / CHECKPOINT

    @property
    def is_done(self) -> bool:
        """Whether its training has ended."""
        return (self.checkpoint / CARD).is_file()


class Networks:
    """The networks to train: settings, folds, and where each lies."""

    def __init__(self, cli: Planned, arguments: Sequence[str], fold_N: Texts, members: int) -> None:
        self.cli, self.arguments, self.fold_N = cli, list(arguments), fold_N
        self.names = fold_names(fold_N)
        self.epochs = int(cli.settings.trainer.max_epochs)
        out, first = cli.settings.out, int(cli.settings.seed_everything)
        self.seeds = range(first, first + members)

        def jobs(fold: str, what: str, folder: Callable[[int], Path]) -> list[Job]:
            seeded = "" if members == 1 else ", seed {}"
            return [Job(fold, it, folder(it), what + seeded.format(it)) for it in self.seeds]

        def of_fold(number: int) -> Callable[[int], Path]:
            """By its number, from 1, as its name may be any text; more members may come later."""
            return lambda seed: out / FOLDS / (f"{number}" + f"-seed{seed}" * (seed > first))

        count = len(self.names)
        self.of_folds = [
            jobs(name, f"fold {name} ({number} of {count})", of_fold(number))
            for number, name in enumerate(self.names, start=1)
        ]
        self.of_refit = jobs(
            ALL, "all patients", lambda seed: out if members == 1 else out / REFITS / f"seed{seed}"
        )

    def say_plan(self, *, refit: bool) -> None:
        """Print what is trained, what decides, and how long it takes by steps measured here."""
        data, members = self.cli.datamodule, len(self.seeds)
        everyone = data.cohort.table["patient_id"]
        sizes = [everyone[self.fold_N == name].nunique() for name in self.names]
        say(
            f"plan: {len(self.names)} folds of {' '.join(map(str, sizes))} patients; "
            f"{networks(members)} for each, trained on the others, {self.epochs} epochs"
        )
        if members > 1:
            seeds = " ".join(map(str, self.seeds))
            say(
                f"members: their logits are averaged; they differ by their seeds {seeds}; training "
                f"and the network's pass cost {members} times what one costs (`--members 1`)"
            )
        say("epoch to keep: the last; no patient who is scored chooses anything in training")
        if refit:
            say(
                f"then {networks(members)} on all {everyone.nunique()} patients for as many "
                "epochs, to see each image as often as the folds did; temperatures "
                "and thresholds come from the folds"
            )
        planned = [job for jobs in self.of_folds for job in jobs]
        if refit:
            planned += self.of_refit
        left = [self._epochs_left(job) for job in planned]
        if not any(left):
            say("time: none; all of it is done")
            return
        step, image = measured(self.cli)
        batch = data.batch_size * self.cli.trainer.world_size
        seconds = 0.0
        for epochs, job in zip(left, planned, strict=True):
            kept = int((self.fold_N == job.fold).sum()) if job not in self.of_refit else 0
            steps = max(1, (len(self.fold_N) - kept) // batch)
            seconds += epochs * (steps * step + kept * image)
        say(
            f"time: about {spoken(seconds)}, by steps of {step:.2f} s measured here; "
            f"{left.count(0)} of {len(left)} networks are done"
        )

    def _epochs_left(self, job: Job) -> int:
        whole = self.cli.settings.out / CHECKPOINT / CARD
        if job.is_done or (job in self.of_refit and whole.is_file()):
            return 0
        last = job.out / resume.RUN / resume.LAST
        return self.epochs - (resume.epochs_of(last) if last.exists() else 0)

    def train(self, job: Job, *more: str) -> None:
        """`sonode train fit` in a process of its own, so that no run inherits another's state."""
        if not job.is_done:
            say(f"training: {job.what}")
            flags = [f"--data.fold={job.fold}", f"--out={job.out}", *more]
            flags.append(f"--seed_everything={job.seed}")
            flags.append(f"--trainer.precision={self.cli.settings.trainer.precision}")
            if code := run_sonode(["train", "fit", *self.arguments, *flags]):
                raise UserError(
                    f"{job.what}: its training ended with exit code {code}, see above; the same "
                    "command goes on from there"
                )
        for state in (job.out / resume.RUN).glob("*.ckpt"):  # what resuming needed
            state.unlink()
        # The record has the path of a file of weights, which may hold others since.
        weights = self.cli.model.weights_known_as
        if read_card(job.checkpoint).training.get("weights", weights) != weights:
            raise UserError(
                f"{job.what}: its network began with other weights than model.weights gives now; "
                f"give those again, or delete {job.out} to train it with these"
            )


def networks(count: int) -> str:
    """Their number as text."""
    return "a network" if count == 1 else f"{count} networks"
