import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from model_def.heads import HeadSpec, Hierarchy
from model_def.network import Network
from sonode.console import UserError
from train.cohorts.labels import implied, truth_of
from train.fitting.aucs import head_aucs
from train.fitting.predictions import Predictions
from train.fitting.task import MultiTask
from train.measures.evaluate import evaluate

NAN = math.nan


def test_aucs_by_hand_on_all_and_on_the_parents_positives(heads: tuple[HeadSpec, ...]) -> None:
    labels = torch.tensor([[0, 0], [1, 0], [1, 1], [1, 1], [1, NAN], [NAN, 1]])
    scores = torch.tensor([[0.1, 0.9], [0.4, 0.2], [0.3, 0.7], [0.8, 0.1], [0.05, 0.5], [0.5, 0.6]])
    malignancy, on_malignant, alnm = head_aucs(scores, labels, heads)
    # Malignant 0.4, 0.3, 0.8, 0.05 against benign 0.1: three of four pairs in order.
    assert (malignancy.n_images, malignancy.n_positive, malignancy.auc) == (5, 4, 0.75)
    # ALNM 0.7, 0.1 against 0.2 among malignant: one of two.
    assert (on_malignant.on, on_malignant.n_images, on_malignant.auc) == (
        "malignancy positive",
        3,
        0.5,
    )
    known = ~labels[:, 1].isnan()
    assert alnm.auc == pytest.approx(roc_auc_score(labels[known, 1], scores[known, 1]))


def test_undefined_is_not_a_number_and_no_label_is_no_row(heads: tuple[HeadSpec, ...]) -> None:
    labels = torch.tensor([[1, NAN], [1, NAN]])
    found = head_aucs(torch.rand(2, 2), labels, heads)
    assert [(item.head, item.auc) for item in found] == [("malignancy", None)]


def test_aucs_are_of_the_sets_and_rows_that_the_evaluation_takes(
    heads: tuple[HeadSpec, ...],
) -> None:
    """Nodal counts among them: on malignant lesions first, then where there is a metastasis."""
    line = (
        *heads,
        HeadSpec(name="n2", target="n_nodes>=2", labels=("n", "y"), parent="alnm"),
        HeadSpec(name="n3", target="n_nodes>=3", labels=("n", "y"), parent="n2"),
    )
    generator = np.random.default_rng(0)
    depth = generator.integers(0, 5, 300)
    labels = (depth[:, None] > np.arange(4)).astype(np.float32)
    labels[generator.random(labels.shape) < 0.2] = np.nan
    scores = generator.random((300, 4))
    known = implied(torch.from_numpy(labels), line).numpy()
    ids = [str(k) for k in range(300)]
    frame = pd.DataFrame({"patient_id": ids, "lesion_id": ids, "device": None})
    frame = frame.assign(roi_x_min=0, roi_y_min=0, roi_x_max=30, roi_y_max=20)
    for k, head in enumerate(line):
        frame[f"{head.name}_truth"] = truth_of(known[:, k], head.labels)
        frame[f"{head.name}_probability"] = scores[:, k]
    predictions = Predictions(frame=frame, heads=line, hierarchy="independent", about={})
    evaluated = [
        (name, on, its["image"]["rows"], its["image"]["positive"], its["image"]["roc_auc"]["value"])
        for name, head in evaluate(predictions, resamples=0)["heads"].items()
        for on, its in head["sets"].items()
    ]
    assert [it[:2] for it in evaluated] == [
        ("malignancy", "all"),
        *(("alnm", on) for on in ("malignancy positive", "all")),
        *(("n2", on) for on in ("malignancy positive", "alnm positive", "all")),
        *(("n3", on) for on in ("malignancy positive", "n2 positive", "all")),
    ]
    aucs = head_aucs(torch.from_numpy(scores), torch.from_numpy(labels), line)
    assert [dataclasses.astuple(it)[:4] for it in aucs] == [it[:4] for it in evaluated]
    assert [it.auc for it in aucs] == pytest.approx([it[4] for it in evaluated])


def test_a_network_for_alnm_alone_is_measured_on_malignant_lesions(
    heads: tuple[HeadSpec, ...],
) -> None:
    alone = (heads[1].model_copy(update={"parent": None, "given": "malignant"}),)
    labels, malignant = torch.tensor([[0.0], [0], [1], [1]]), torch.tensor([0.0, 1, 1, NAN])
    scores = torch.tensor([[0.9], [0.2], [0.3], [0.1]])
    on_malignant, on_all = head_aucs(scores, labels, alone, {"malignant": malignant})
    assert (on_malignant.on, on_malignant.n_images, on_malignant.auc) == (
        *("malignant positive", 2),
        1.0,
    )
    assert (on_all.on, on_all.n_images, on_all.auc) == ("all", 4, 0.25)


class FakeTrainer:
    """As much of a trainer as `setup` asks for."""

    def __init__(self, labels: torch.Tensor) -> None:
        self.datamodule = self
        self.is_global_zero = True
        self.callbacks: list[object] = []
        self.parts = {"train": self}
        self.labels_NK = labels
        self.divided_by = "data.split_seed 4"

    def setup_for(self, heads: object, facts: object) -> None:
        pass


def task_for(
    labels: list[list[float]],
    heads: tuple[HeadSpec, ...],
    hierarchy: Hierarchy = "independent",
    weights: str = "none",
) -> MultiTask:
    task = MultiTask(heads=heads, hierarchy=hierarchy, architecture="resnet18", weights=weights)
    task._trainer = FakeTrainer(torch.tensor(labels, dtype=torch.float32))  # type: ignore[assignment]
    task.setup("fit")
    return task


def test_a_head_without_labels_is_left_out_and_reported(
    heads: tuple[HeadSpec, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    task = task_for([[0, NAN], [1, NAN]], heads)
    assert [head.name for head in task.heads] == ["malignancy"]
    assert task.network.heads.out_features == 1
    assert task.label_counts == {"malignancy": {"benign": 1, "malignant": 1}}
    assert "head alnm: no label in the training part" in capsys.readouterr().out


def test_a_child_whose_parent_is_left_out_stands_alone(heads: tuple[HeadSpec, ...]) -> None:
    task = task_for([[NAN, 0], [NAN, 1]], heads)
    assert [(head.name, head.parent) for head in task.heads] == [("alnm", None)]


def test_one_class_or_no_labels_are_errors(heads: tuple[HeadSpec, ...]) -> None:
    with pytest.raises(
        UserError, match=r"head malignancy: .*\(benign 0, malignant 2; divided by data"
    ):
        task_for([[1, 0], [1, 1]], heads)
    with pytest.raises(UserError, match=r"head alnm: .*\(no ALNM 0, ALNM 1; divided by data"):
        task_for([[0, 0], [1, 1]], heads)  # the benign one is not in its term
    with pytest.raises(UserError, match="no head has a label"):
        task_for([[NAN, NAN]], heads)


def test_an_unknown_trunk_is_refused(heads: tuple[HeadSpec, ...]) -> None:
    with pytest.raises(UserError, match=r"^model\.architecture resnet19: unknown; .*resnet18"):
        MultiTask(heads=heads, architecture="resnet19")


def test_a_chain_without_its_middle_hangs_on_what_is_above(heads: tuple[HeadSpec, ...]) -> None:
    many = HeadSpec(name="n2", target="n_nodes>=2", labels=("n", "y"), parent="alnm")
    task = task_for([[0, NAN, NAN], [1, NAN, 0], [1, NAN, 1]], (*heads, many))
    assert [(head.name, head.parent) for head in task.heads] == [
        ("malignancy", None),
        ("n2", "malignancy"),
    ]


def test_node_counts_alone_are_enough_for_a_chain(heads: tuple[HeadSpec, ...]) -> None:
    many = HeadSpec(name="n2", target="n_nodes>=2", labels=("n", "y"), parent="alnm")
    labels = [[0, NAN, 0], [1, NAN, 0], [1, NAN, 0], [1, NAN, 1]]
    task = task_for(labels, (*heads, many), "chain")
    assert [(head.name, head.parent) for head in task.heads] == [
        ("malignancy", None),
        ("n2", "malignancy"),
    ]
    assert task.label_counts["n2"] == {"n": 2, "y": 1}  # the malignant ones, as in training


def test_a_categorical_auc_is_the_mean_of_one_against_the_rest() -> None:
    heads = (HeadSpec(name="subtype", target="subtype", labels=("a", "b", "c")),)
    labels = torch.tensor([[0.0], [1], [2], [0], [1], [2], [NAN]])
    scores = torch.rand(7, 3, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    (found,) = head_aucs(scores, labels, heads)
    expected = roc_auc_score(labels[:6, 0], scores[:6], multi_class="ovr", average="macro")
    assert found.auc == pytest.approx(expected)
    # In a chain they sum to the parent's probability, and the evaluation takes them as they are.
    chained = scores * torch.rand(7, 1, generator=torch.Generator().manual_seed(2))
    (found,) = head_aucs(chained, labels, heads)
    each = [roc_auc_score(labels[:6, 0] == place, chained[:6, place]) for place in range(3)]
    assert found.auc == pytest.approx(sum(each) / 3)
    assert (found.n_images, found.n_positive) == (6, None)
    (found,) = head_aucs(scores[:2], labels[:2], heads)
    assert found.auc is None  # no third label


def test_a_resumed_run_names_the_weights_that_it_began_with(
    heads: tuple[HeadSpec, ...], tmp_path: Path
) -> None:
    path = tmp_path / "first.pth"
    named, kept = [], dict[str, Any]()
    for _ in range(2):  # the file is another one when the run goes on
        torch.save(Network("resnet18", 1).state_dict(), path)
        task = task_for([[0, NAN], [1, 0], [1, 1]], heads, weights=str(path))
        named.append(task.weights_known_as)
        if kept:
            task.on_load_checkpoint(kept)
        task.on_save_checkpoint(kept)
    assert named[0] != named[1]
    assert task.weights_known_as == kept["weights_known_as"] == named[0]
