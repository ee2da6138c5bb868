"""Cohort -> batches: crops cached in memory, augmentation, the split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import joblib
import lightning
import numpy as np
import pandas as pd
import pyarrow as pa
from jsonargparse.typing import NonNegativeInt, PositiveInt, restricted_number_type
from torch.utils.data import DataLoader

from model_def.heads import HeadSpec
from model_def.preprocessing import Pixels, Preprocessing, crop
from sonode.console import UserError, progress, say
from train.cohorts.cohort import Cohort
from train.cohorts.folds import fold_names, folds_of
from train.cohorts.images import read_image
from train.cohorts.labels import child_labels, label_matrix
from train.cohorts.mixed import load_cohorts
from train.cohorts.split import PARTS, SPLIT, Part, closest_seed, divided_by, empty_part, parts_of
from train.data.augment import Augmentation, augmentation
from train.data.crops import Crops, EpochSampler

Folds = restricted_number_type("Folds", int, (">=", 2))
ALL = "all"  # the fold of a network that is trained on every patient


class CohortData(lightning.LightningDataModule):
    """The cohort's three parts for the heads and facts that the task is configured with."""

    def __init__(
        self,
        cohort: list[Path] | Path,  # in this order: any text would do for a path
        batch_size: PositiveInt = 32,
        split_seed: NonNegativeInt = 0,
        folds: Folds | str | None = None,  # type: ignore[valid-type]
        fold: str | None = None,
        num_workers: NonNegativeInt | None = None,
        malignant_only: bool = False,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
    ) -> None:
        """Take a cohort folder, images per batch, the split's seed, and loader processes.

        `cohort`: several mix their rows (`--data.cohort A --data.cohort B`), each image with the
        same weight; a column `cohort` names where a row is from.
        A cohort with a column `split` (train, val, test) is split by it, any other by `split_seed`.
        `folds`: a number of folds to draw by patient (with `split_seed`), or the column that holds
        them. `fold`: the one that is held out as validation part; `sonode train folds` sets it.
        `num_workers`: by default none where the network runs on the CPU, whose cores it needs
        itself, and one for each core but one, up to 8, where it runs on a GPU.
        `malignant_only` leaves other lesions out of training and validation, as the paper's network
        for ALNM alone; the test part stays whole.
        """
        super().__init__()
        self.cohort_folders = cohort if isinstance(cohort, list) else [cohort]
        self.cohort_folder = " + ".join(map(str, self.cohort_folders))  # for messages
        self.batch_size = int(batch_size)
        self.split_seed = int(split_seed)
        self.folds = folds if folds is None or isinstance(folds, str) else int(folds)
        self.fold = fold
        self.num_workers = num_workers
        self.malignant_only = malignant_only
        self.augmentation = augmentation
        self.seed = 0  # of shuffling and augmentation; the command line sets seed_everything's
        self.epochs_done = 0  # by the interrupted run that the command line resumes
        self.parts: dict[str, Crops] = {}
        self.indices: dict[str, list[int]] = {}
        """Rows of the cohort's table that each part holds, in the order of its crops."""
        self._cohort: Cohort | None = None

    @property
    def cohort(self) -> Cohort:
        """The cohort, read and checked when it is first asked for; UserError if it has faults."""
        if self._cohort is None:
            self._cohort = load_cohorts(self.cohort_folders)
        return self._cohort

    @cached_property
    def part_of_row(self) -> list[Part]:
        """The part of each of the cohort's rows, `malignant_only` aside.

        Raises UserError: a partition that cannot be used, or `fold` and `folds` do not fit.
        """
        table = self.cohort.table
        if self.fold == ALL:
            return ["train"] * len(table)
        if self.folds is None:
            if self.fold is not None:
                raise UserError(f"data.fold {self.fold}: give data.folds, too")
            if SPLIT in table:
                say(f"COHORT {self.cohort_folder}: its column `{SPLIT}` is the split")
            return parts_of(table, self.split_seed)
        fold_N = folds_of(self.cohort, self.folds, self.split_seed)
        if self.fold not in set(fold_N):
            names = ", ".join(fold_names(fold_N))
            raise UserError(
                f"data.fold {self.fold}: give the fold to hold out ({names}), or train them all "
                "with `sonode train folds`"
            )
        return ["val" if it == self.fold else "train" for it in fold_N]

    @property
    def divided_by(self) -> str:
        """What decides the part of each row, in words."""
        if self.folds is not None:
            return f"data.fold {self.fold}"
        return divided_by(self.cohort.table, self.split_seed)

    def rows_of(self, part: Part) -> list[int]:
        """The cohort's rows of a part, `malignant_only` aside."""
        return [row for row, its in enumerate(self.part_of_row) if its == part]

    def setup_for(
        self, heads: Sequence[HeadSpec], facts: Preprocessing, *, may_lack: bool = False
    ) -> None:
        """Load the cohort and cut every crop once; decoding is the loader's whole cost.

        `may_lack`: parts of the split may be empty, and targets absent, as in a cohort to evaluate
        on: labels that are not there are missing, which is reported.

        Raises UserError: the cohort has faults, or a part of the split is empty.
        """
        table = self.cohort.table
        labels_NK = label_matrix(self._with_targets(heads) if may_lack else table, heads)
        part: list[str | None] = list(self.part_of_row)
        if self.malignant_only:
            malignant_N = (table["malignant"] == True).fillna(False)  # noqa: E712
            for index, is_malignant in enumerate(malignant_N):
                if part[index] != "test" and not is_malignant:
                    part[index] = None
        crops = self.crops_of(range(len(table)), facts)
        wanted = PARTS if self.folds is None and self.fold is None else set(self.part_of_row)
        for name in PARTS:
            chosen = [index for index, its in enumerate(part) if its == name]
            if not chosen and name in wanted and not may_lack:
                learned_NK = child_labels(labels_NK, heads, "independent", "mask")
                best = closest_seed(list(table["patient_id"]), learned_NK)
                remedy = (
                    "the cohort is too small" if best is None else f"give split_seed {best.seed}"
                )
                why = (
                    f"no lesion of the {name} part is malignant; turn off data.malignant_only"
                    if name in self.part_of_row
                    else empty_part(table, name, self.split_seed, remedy)
                )
                raise UserError(f"COHORT {self.cohort_folder}: {why}")
            self.indices[name] = chosen
            self.parts[name] = Crops(
                [crops[index] for index in chosen],
                labels_NK[chosen],
                facts,
                augmentation(self.augmentation, facts.size) if name == "train" else None,
            )

    def _with_targets(self, heads: Sequence[HeadSpec]) -> pd.DataFrame:
        """The cohort's table with an empty column for each target that it does not have."""
        table = self.cohort.table
        targets = {head.target.partition(">=")[0]: head.name for head in heads}
        absent = [name for name in targets if name not in table]
        for name in absent:
            say(
                f"COHORT {self.cohort_folder}: has no column `{name}`; head {targets[name]} is not "
                "measured"
            )
        nothing = pd.Series([None] * len(table), table.index, dtype=pd.ArrowDtype(pa.float64()))
        return table.assign(**dict.fromkeys(absent, nothing))

    def crops_of(self, rows: Sequence[int], facts: Preprocessing) -> list[Pixels]:
        """The crops of those rows at their own resolution; each image is read once in a row."""
        crops: list[Pixels] = []
        image, frame = "", np.empty((0, 0), np.uint8)
        for row in progress(rows, total=len(rows), what="cutting crops"):
            if self.cohort.table["image"].iloc[row] != image:
                image = self.cohort.table["image"].iloc[row]
                frame = read_image(self.cohort.image_path(row))
            crops.append(crop(frame, self.cohort.roi(row), facts).copy())
        return crops

    def patients(self, name: str) -> int:
        """How many patients are in that part, of those whose lesions it holds."""
        return int(self.cohort.table["patient_id"].iloc[self.indices[name]].nunique())

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training batches; the last, partial one is dropped (batch norm)."""
        train = self.parts["train"]
        replicas, rank = (
            (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        )
        return DataLoader(
            train,
            self.batch_size,
            sampler=EpochSampler(
                train, self.seed, first_epoch=self.epochs_done, replicas=replicas, rank=rank
            ),
            drop_last=len(train) // replicas > self.batch_size,
            num_workers=(workers := self._workers()),
            persistent_workers=workers > 0,
        )

    def _workers(self) -> int:
        if self.num_workers is not None:
            return int(self.num_workers)
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type != "cpu"
        return min(8, max(1, joblib.cpu_count() - 1)) if on_gpu else 0

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches in cohort order; of several processes each goes through all."""
        return DataLoader(self.parts["val"], self.batch_size, num_workers=self._workers())

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches in cohort order."""
        return DataLoader(self.parts["test"], self.batch_size, num_workers=self._workers())
