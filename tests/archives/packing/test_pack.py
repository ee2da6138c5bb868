"""Packing: the same bytes from the same inputs, and nothing left where it is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from archives.packing import pack as pack_module
from archives.packing.loader import load_folder
from archives.packing.members import ArchiveError, file_sha256
from archives.packing.pack import pack
from model_def import checkpoint
from model_def.heads import HeadSpec
from model_def.network import Network
from sonode.console import UserError


def test_two_packs_of_one_checkpoint_are_the_same_bytes(
    archive_path: Path, checkpoint_folder: Path, tmp_path: Path
) -> None:
    # Other copies, made at another time in another place, with another umask and hash seed.
    copy = shutil.copytree(checkpoint_folder, tmp_path / "copy", copy_function=shutil.copyfile)
    code = (
        "import os, sys; os.umask(0o077); from pathlib import Path; "
        "from archives.packing.pack import pack; "
        "pack(Path(sys.argv[1]), 'tiny', '1.0', Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, copy, tmp_path / "store"],
        env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        check=True,
    )
    again = tmp_path / "store" / "tiny-1.0.mar"
    assert file_sha256(again) == file_sha256(archive_path)


def test_what_is_in_an_archive(archive_path: Path, checkpoint_folder: Path) -> None:
    with zipfile.ZipFile(archive_path) as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        for file in ("weights.safetensors", "model.json"):
            assert archive.read(file) == (checkpoint_folder / file).read_bytes()
        expected = json.loads(archive.read("golden/golden.json"))
    assert {
        "service.py",
        "model-config.yaml",
        "handlers/images/prepare.py",
        "model_def/heads.py",
        "model_def/images/dicom/decode.py",
    } <= names
    assert "handlers/service.py" not in names  # one copy of it, where TorchServe looks
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pt", ".pth"))]
    assert "createdOn" not in manifest
    assert manifest["model"]["handler"] == "service.py"
    assert (manifest["model"]["modelName"], manifest["model"]["modelVersion"]) == ("tiny", "1.0")
    assert {example["image"] for example in expected} == {
        Path(name).name for name in names if name.endswith(".png")
    }
    assert all(set(example["probabilities"]) == {"malignancy", "alnm"} for example in expected)


def test_the_golden_examples_of_a_head_with_three_labels_have_all_of_them(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    _, card = checkpoint.load(checkpoint_folder)
    subtype = HeadSpec(name="subtype", target="subtype", labels=("A", "B", "C"))
    card = card.model_copy(update={"heads": (card.heads[0], subtype)})
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "checkpoint", Network(card.architecture, 4), card)
    path = pack(tmp_path / "checkpoint", "three", "1.0", tmp_path / "store")
    with zipfile.ZipFile(path) as archive:
        examples = json.loads(archive.read("golden/golden.json"))
    for example in examples:
        assert 0 < example["probabilities"]["malignancy"] < 1
        of_labels = example["probabilities"]["subtype"]
        assert list(of_labels) == ["A", "B", "C"]
        assert sum(of_labels.values()) == pytest.approx(1, abs=2e-5)


def test_an_archive_without_golden_examples_is_not_loaded(
    archive_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(archive_path) as archive:
        archive.extractall(folder)
    (folder / "golden" / "golden.json").write_text("[]")
    with pytest.raises(ArchiveError, match="golden"), load_folder(folder):
        pass


def test_an_equal_archive_may_be_packed_again(archive_path: Path, checkpoint_folder: Path) -> None:
    assert pack(checkpoint_folder, "tiny", "1.0", archive_path.parent) == archive_path


def changed(checkpoint_folder: Path, folder: Path) -> Path:
    copy = shutil.copytree(checkpoint_folder, folder)
    card = json.loads((copy / "model.json").read_text())
    card["heads"][0]["threshold"] = 0.4
    (copy / "model.json").write_text(json.dumps(card))
    return copy


def test_another_archive_of_that_version_is_not_replaced(
    archive_path: Path, checkpoint_folder: Path, tmp_path: Path
) -> None:
    before = file_sha256(archive_path)
    with pytest.raises(UserError, match=r"--version 1\.0: "):
        pack(changed(checkpoint_folder, tmp_path / "other"), "tiny", "1.0", archive_path.parent)
    assert file_sha256(archive_path) == before
    assert [path.name for path in archive_path.parent.iterdir()] == [archive_path.name]


def test_two_that_pack_one_version_at_once_do_not_share_a_file(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(checkpoint_folder, tmp_path / "other")
    network, card = checkpoint.load(checkpoint_folder)
    checkpoint.save(other, network, card.model_copy(update={"training": {"other": 1}}))
    store, between = tmp_path / "store", pack_module._prove_and_zip

    def meanwhile(unpacked: Path, target: Path) -> None:
        monkeypatch.setattr(pack_module, "_prove_and_zip", between)
        between(unpacked, target)
        pack(other, "tiny", "1.0", store)  # begins later, ends first

    monkeypatch.setattr(pack_module, "_prove_and_zip", meanwhile)
    with pytest.raises(UserError, match="exists with other content"):
        pack(checkpoint_folder, "tiny", "1.0", store)
    assert [path.name for path in store.iterdir()] == ["tiny-1.0.mar"]
    with zipfile.ZipFile(store / "tiny-1.0.mar") as archive:
        assert json.loads(archive.read("model.json"))["training"] == {"other": 1}


@pytest.mark.parametrize(
    "name", ["", "a b", "../up", "a/b", "-x", "näme", "tiny\n", ".hidden", "a" * 65]
)
def test_a_name_that_cannot_be(checkpoint_folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"--name {re.escape(repr(name))}: use"):
        pack(checkpoint_folder, name, "1.0", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"CHECKPOINT .*model\.json.*train fit"):
        pack(tmp_path, "tiny", "1.0", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_weights_of_another_network(checkpoint_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint_folder, tmp_path / "copy")
    card = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(card | {"architecture": "resnet50"}))
    with pytest.raises(ArchiveError, match="does not start"):
        pack(copy, "tiny", "1.0", tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_it_is_on_the_disk_before_it_has_its_name_and_the_temporary_folder_is_left_as_it_was(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch-model-archiver deletes a folder of the model's name there, whosever it is.
    temp = tmp_path / "job 1,2; $x"
    (temp / "tiny").mkdir(parents=True)
    (temp / "tiny" / "thesis.txt").write_text("three years of work")
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    monkeypatch.setenv("TMPDIR", str(temp))
    synced: list[int] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        fsync(file)
        if not (tmp_path / "store" / "tiny-1.0.mar").exists():
            synced.append(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    made = pack(checkpoint_folder, "tiny", "1.0", tmp_path / "store")
    assert made.stat().st_ino in synced
    assert [*tmp_path.joinpath("store").iterdir()] == [made]
    assert [path.relative_to(temp).as_posix() for path in sorted(temp.rglob("*"))] == [
        "tiny",
        "tiny/thesis.txt",
    ]


def test_an_archiver_that_fails_is_quoted(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "CODE", tmp_path / "no-code")
    (tmp_path / "no-code" / "handlers").mkdir(parents=True)
    (tmp_path / "no-code" / "model_def").mkdir()
    with pytest.raises(ArchiveError, match=r"torch-model-archiver failed: .*service\.py"):
        pack(checkpoint_folder, "tiny", "1.0", tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_network_that_gives_no_numbers(checkpoint_folder: Path, tmp_path: Path) -> None:
    network, card = checkpoint.load(checkpoint_folder)
    torch.nn.init.constant_(network.heads.bias, torch.nan)
    checkpoint.save(tmp_path / "nan", network, card)
    with pytest.raises(ArchiveError, match=r"CHECKPOINT: .*golden_0\.png"):
        pack(tmp_path / "nan", "tiny", "1.0", tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []
