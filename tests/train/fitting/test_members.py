"""Networks of two seeds as one: the mean logit, and what cannot be averaged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model_def import checkpoint
from model_def.checkpoint import ModelCard
from model_def.heads import keep_heads
from model_def.network import Network
from model_def.outliers import OutlierLimit
from sonode.console import UserError
from tests.conftest import HEADS
from train.fitting.members import join
from train.fitting.pooled import Pooled

Change = Callable[[ModelCard], dict[str, Any]]


def write(folder: Path, card: ModelCard, seed: int, **changed: Any) -> Path:
    torch.manual_seed(seed)
    training = {**card.training, "seed": seed}
    card = card.model_copy(update={"training": training, **changed})
    checkpoint.save(folder / "checkpoint", Network(card.architecture, len(card.heads)), card)
    return folder / "checkpoint"


@pytest.fixture
def pooled() -> Pooled:
    limit = OutlierLimit(false_alarms=0.05, patients=14, limit=None, why="too few")
    heads = tuple(head.model_copy(update={"temperature": 1.5}) for head in HEADS)
    return Pooled(
        heads=heads,
        temperatures={"malignancy": "of the folds"},
        score_reference={"malignancy": [1]},
        out_of_distribution=limit,
        figures={"statement": "of 2 folds"},
    )


def test_logits_are_the_mean_of_the_members(
    card: ModelCard, pooled: Pooled, tmp_path: Path
) -> None:
    folders = [write(tmp_path / str(seed), card, seed) for seed in (4, 5, 6)]
    (folders[0] / "images.parquet").write_bytes(b"seen")
    join(folders, pooled, tmp_path / "whole")
    network, found = checkpoint.load(tmp_path / "whole")
    assert (found.members, found.heads) == (3, pooled.heads)
    assert found.training["seeds"] == [4, 5, 6]
    assert "seed" not in found.training
    assert found.training["temperatures"] == pooled.temperatures
    assert found.training["figures"] == pooled.figures
    assert (tmp_path / "whole" / "images.parquet").read_bytes() == b"seen"

    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        own_MBL = torch.stack([checkpoint.load(folder)[0](images)[0] for folder in folders])
        logits_BL, features_BChw = network(images)
    torch.testing.assert_close(logits_BL, own_MBL.mean(dim=0), rtol=1e-5, atol=1e-5)
    members_MBL = network.member_logits(features_BChw)
    torch.testing.assert_close(members_MBL, own_MBL, rtol=1e-5, atol=1e-5)
    assert (own_MBL[0] - own_MBL[1]).abs().max() > 0.01  # else any of them would pass


OTHERS: dict[str, Change] = {
    "architecture": lambda _: {"architecture": "resnet34"},
    "preprocessing": lambda card: {
        "preprocessing": card.preprocessing.model_copy(update={"context": 0.3})
    },
    "heads": lambda card: {"heads": keep_heads(card.heads, ["malignancy"])},
    "hierarchy": lambda _: {"hierarchy": "chain"},
    "cohort, or split": lambda card: {
        "training": {**card.training, "cohort": {**card.training["cohort"], "split_seed": 1}}
    },
}


@pytest.mark.parametrize("field", OTHERS)
def test_networks_of_other_kinds_or_patients_are_refused(
    card: ModelCard, pooled: Pooled, tmp_path: Path, field: str
) -> None:
    folders = [write(tmp_path / str(seed), card, seed) for seed in (1, 2)]
    shutil.rmtree(folders[1])
    changed = {"training": {**card.training, "seed": 2}, **OTHERS[field](card)}
    other = card.model_copy(update=changed)
    checkpoint.save(folders[1], Network(other.architecture, len(other.heads)), other)
    with pytest.raises(UserError, match=f"2: differs from 1 in its {field}") as error:
        join(folders, pooled, tmp_path / "whole")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "whole").exists()


def test_a_damaged_member_is_refused(card: ModelCard, pooled: Pooled, tmp_path: Path) -> None:
    folders = [write(tmp_path / str(seed), card, seed) for seed in (1, 2)]
    (folders[1] / "weights.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged"):
        join(folders, pooled, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
