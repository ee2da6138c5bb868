import numpy as np
import torch

from model_def.preprocessing import Preprocessing
from train.data.augment import Augmentation, augmentation
from train.data.crops import Crops, EpochSampler


def crops(n: int, *, augmented: bool = True) -> Crops:
    facts = Preprocessing(size=32)
    pixels = [np.full((20, 30), 10 * index, np.uint8) for index in range(n)]
    labels = torch.arange(n, dtype=torch.float32)[:, None]
    return Crops(pixels, labels, facts, augmentation(Augmentation(), 32) if augmented else None)


def drawn(n: int, epoch: int, replicas: int = 1, rank: int = 0) -> list[tuple[int, int]]:
    sampler = EpochSampler(crops(n), 3, replicas=replicas, rank=rank)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_is_drawn_from_seed_and_number_alone() -> None:
    assert drawn(10, 2) == drawn(10, 2)
    assert drawn(10, 2) != drawn(10, 3)
    assert sorted(index for index, _ in drawn(10, 2)) == list(range(10))


def test_processes_share_an_epoch_without_overlap() -> None:
    shares = [drawn(10, 2, replicas=2, rank=rank) for rank in (0, 1)]
    assert [len(share) for share in shares] == [5, 5]
    assert sorted(shares[0] + shares[1]) == sorted(drawn(10, 2))


def test_the_same_draw_gives_the_same_picture() -> None:
    data = crops(3)
    first, again, other = data[1, 7], data[1, 7], data[1, 8]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    plain = crops(3, augmented=False)[1]
    assert (plain[0] == 10).all()
    assert plain[1].item() == 1
