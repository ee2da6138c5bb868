from pathlib import Path

import numpy as np
import pytest
import torch

from model_def.outliers import OutlierLimit
from sonode.console import UserError
from tests.conftest import HEADS
from train.fitting.pooled import HELD_OUT, Pooled, held_out_bytes, read_held_out, read_pooled


def test_logits_of_a_fold_are_kept_bit_for_bit(tmp_path: Path) -> None:
    logits = torch.tensor([[0.1, -3.7], [5e-8, 12.0]])
    scores = np.array([0.1, 7e9])
    (tmp_path / HELD_OUT).write_bytes(held_out_bytes([7, 2], logits, scores))
    found = read_held_out(tmp_path)
    assert found.rows == [7, 2]
    assert torch.equal(found.logits_NL, logits)
    assert found.outlier_N.tolist() == scores.tolist()
    whole = (tmp_path / HELD_OUT).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        (tmp_path / HELD_OUT).write_bytes(damaged)
        with pytest.raises(UserError, match="absent or damaged; delete"):
            read_held_out(tmp_path)


def test_what_folds_found_is_of_the_same_heads(tmp_path: Path) -> None:
    path = tmp_path / "pooled.json"
    limit = OutlierLimit(false_alarms=0.05, patients=14, limit=None, why="too few")
    found = Pooled(heads=HEADS, temperatures={}, score_reference={}, out_of_distribution=limit)
    path.write_text(found.model_dump_json())
    assert read_pooled(path, ["malignancy", "alnm"]) == found
    with pytest.raises(UserError, match="the folds have the heads malignancy, alnm, and this"):
        read_pooled(path, ["malignancy"])
    path.write_text("{}")
    with pytest.raises(UserError, match="cannot be read; run `sonode train folds`"):
        read_pooled(path, ["malignancy"])
