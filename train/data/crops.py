"""The crops of one part as training and evaluation draw them; augmentation seeded by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler
from torchvision.transforms import v2

from model_def.preprocessing import Pixels, Preprocessing, resize

Sample = tuple[torch.Tensor, torch.Tensor]


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
