"""Cohort -> batches: crops cached in memory, augmentation, the split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import joblib
import lightning
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt, restricted_number_type
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.transforms import v2

from model_def.heads import HeadSpec
from model_def.preprocessing import Pixels, Preprocessing, crop, resize
from sonode.console import UserError, progress, say
from train.cohorts.cohort import Cohort, read_image
from train.cohorts.folds import fold_names, folds_of
from train.cohorts.labels import child_labels, label_matrix
from train.cohorts.mixed import load_cohorts
from train.cohorts.split import PARTS, SPLIT, UNEVEN, Part, balance, closest_seed, parts_of
from train.fitting.augment import Augmentation, augmentation

Sample = tuple[torch.Tensor, torch.Tensor]
Folds = restricted_number_type("Folds", int, (">=", 2))
ALL = "all"  # the fold of a network that is trained on every patient


class Crops(Dataset[Sample]):
    """Lesion crops at their own resolution with labels; each item is (uint8 (S, S), (K,))."""

    def __init__(
        self,
        crops: Sequence[Pixels],
        labels_NK: torch.Tensor,
        facts: Preprocessing,
        augment: v2.Transform | None,
    ) -> None:
        self.crops, self.labels_NK, self.facts, self.augment = crops, labels_NK, facts, augment

    def __len__(self) -> int:
        """How many lesion boxes there are."""
        return len(self.crops)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """One crop at network size and its labels (NaN = missing).

        `key` is an index; where this part is augmented, an index and the augmentation's seed.
        """
        if self.augment is None:
            assert isinstance(key, int)
            return self.image(key), self.labels_NK[key]
        assert isinstance(key, tuple)
        index, seed = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image_1SS = self.augment(torch.from_numpy(self.crops[index])[None])
        return image_1SS[0], self.labels_NK[index]

    def image(self, index: int) -> torch.Tensor:
        """One crop at network size, uint8 (S, S), as it is served: without augmentation."""
        return torch.from_numpy(resize(self.crops[index], self.facts).copy())


class EpochSampler(DistributedSampler[Any]):
    """Shuffles and seeds augmentation by seed and epoch alone; Lightning sets the later epochs.

    A resumed run thus draws what the whole one would have drawn, with any number of workers. It
    must know its first epoch: loader processes fetch indices before Lightning has restored it.
    """

    def __init__(
        self, data: Crops, seed: int, *, first_epoch: int = 0, replicas: int, rank: int
    ) -> None:
        super().__init__(data, replicas, rank, seed=seed, drop_last=replicas > 1)
        self.set_epoch(first_epoch)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (index, seed of its augmentation)."""
        for index in super().__iter__():
            state = np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)
            yield index, int(state[0])


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
        them. `fold`: the one that is kept aside as validation part; `sonode train folds` sets it.
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

        Raises:
            UserError: a partition that cannot be used, or `fold` and `folds` do not fit.
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
                f"data.fold {self.fold}: give the fold to keep aside ({names}), or train them all "
                "with `sonode train folds`"
            )
        return ["val" if it == self.fold else "train" for it in fold_N]

    def rows_of(self, part: Part) -> list[int]:
        """The cohort's rows of a part, `malignant_only` aside."""
        return [row for row, its in enumerate(self.part_of_row) if its == part]

    def setup_for(
        self, heads: Sequence[HeadSpec], facts: Preprocessing, *, may_lack: bool = False
    ) -> None:
        """Load the cohort and cut every crop once; decoding is the loader's whole cost.

        `may_lack`: parts of the split may be empty, and targets absent, as in a cohort to evaluate
        on: labels that are not there are missing, which is reported.

        Raises:
            UserError: the cohort has faults, or a part of the split is empty.
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
                raise UserError(
                    f"COHORT {self.cohort_folder}: no patient falls into the {name} part of the "
                    f"split (data.split_seed {self.split_seed}); {remedy}"
                )
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


def split_remarks(data: CohortData, heads: Sequence[HeadSpec]) -> Iterator[str]:
    """Similar images that it tears apart; what chance did to it, and the seed that helps.

    In a small cohort it may leave a part with one class, where an AUC is undefined, or with other
    shares of the labels than the cohort has. A head with a parent learns from the parent's
    positives and is measured there, so only their labels count.
    """
    if data.fold == ALL:
        return
    cohort, split_seed = data.cohort, data.split_seed
    labels_NK = child_labels(label_matrix(cohort.table, heads), heads, "independent", "mask")
    patients = list(cohort.table["patient_id"])
    parts = np.array(data.part_of_row)
    torn = [it for it in cohort.similar if parts[it.first[0]] != parts[it.second[0]]]
    if torn:
        shown = ", ".join(
            f"{it.first[0]} and {it.second[0]} ({it.similarity:.3f})" for it in torn[:10]
        )
        yield (
            f"{len(torn)} pairs of similar images of different patients lie in two parts; if they "
            f"show the same lesions, give them one patient_id; the most similar ones: rows {shown}"
        )
    found = [
        f"the {part} part of the split has no {label!r} of {head.name}"
        + (f" where {head.parent} holds" if head.parent else "")
        for part in (PARTS if data.folds is None else ("train", "val"))
        for head, label_N in zip(heads, labels_NK.T, strict=True)
        for place, label in enumerate(head.labels)
        if (label_N == place).any() and not (label_N[parts == part] == place).any()
    ]
    if data.folds is not None or SPLIT in cohort.table:
        yield from found
        return
    own = next(balance(patients, labels_NK, [split_seed]), None)
    if not found and own is not None and own.off <= UNEVEN:
        return
    yield from found
    best = closest_seed(patients, labels_NK)
    if best is None:
        yield "no split_seed gives every part every label: the cohort is too small"
    elif found:
        yield f"with data.split_seed {best.seed} every part has every label that the cohort has"
    elif own is not None and best.off < own.off:
        yield (
            f"the parts differ from the cohort by up to {own.off:.3f} (share of a label, or size), "
            f"by chance; with data.split_seed {best.seed} by {best.off:.3f}. Choose a seed before "
            "the first training and keep it: then no patient changes part as the cohort grows"
        )
