import json
import shutil
from pathlib import Path

import pytest
import torch

from model_def import checkpoint
from model_def.checkpoint import CheckpointError, ModelCard
from model_def.network import Network


@pytest.fixture
def folder(checkpoint_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_folder, tmp_path / "checkpoint"))


def test_what_is_saved_is_loaded(tmp_path: Path, card: ModelCard) -> None:
    network = Network(card.architecture, 2).eval()
    checkpoint.save(tmp_path / "c", network, card)
    loaded, its_card = checkpoint.load(tmp_path / "c")
    images = torch.rand(1, 3, 64, 64)
    assert its_card == card
    assert torch.equal(loaded(images)[0], network(images)[0])
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]


def test_saving_again_replaces_and_gives_the_same_bytes(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    checkpoint.save(folder, *checkpoint.load(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_a_card_of_an_earlier_version_is_of_one_network(folder: Path) -> None:
    path = folder / "model.json"
    facts = json.loads(path.read_text())
    assert facts.pop("members") == 1
    path.write_text(json.dumps(facts))
    network, card = checkpoint.load(folder)
    assert (card.members, network.members) == (1, 1)
    path.write_text(json.dumps({**facts, "members": 2}))
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoint.load(folder)


@pytest.mark.parametrize("interrupted", [1, 2])  # setting the old one aside; moving the new one in
def test_an_interrupted_replacement_keeps_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    network, card = checkpoint.load(folder)
    calls, rename = [], Path.rename

    def interrupt(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == interrupted:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(folder, network, card)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(surprise=1), "field `surprise`"),
        (lambda card: card["heads"][0].update(threshold=1.5), r"field `heads\.0\.threshold`"),
        (lambda card: card["heads"].reverse(), "list parents first"),
        (lambda card: card.pop("architecture"), "field `architecture`"),
        (lambda card: card["heads"].pop(), "does not fit a test_resnet"),
        (lambda card: card.update(architecture="resnet34"), "does not fit a resnet34"),
        (
            lambda card: card.update(architecture="resnet19"),
            "model.json: architecture resnet19: unknown",
        ),
    ],
)
def test_a_card_that_cannot_be_true_is_refused(folder: Path, change: object, message: str) -> None:
    card = json.loads((folder / "model.json").read_text())
    change(card)  # type: ignore[operator]
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(folder)


def test_absent_and_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.json"):
        checkpoint.load(tmp_path)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: damaged"):
        checkpoint.load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no weights\.safetensors"):
        checkpoint.load(folder)
