"""Opening an archive: its code stays apart from this repository's."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import handlers.errors
from archives.packing.inspect import inspect_archive
from archives.packing.loader import load_archive
from archives.packing.members import ArchiveError, file_sha256
from tests.conftest import encode


def test_its_service_scores(archive_path: Path, frame: np.ndarray) -> None:
    with load_archive(archive_path) as archive:
        assert (archive.name, archive.version) == ("tiny", "1.0")
        assert archive.sha256 == file_sha256(archive_path)
        assert list(archive.heads) == ["malignancy", "alnm"]
        assert "gradcam" in archive.methods
        good, bad = archive.score(
            [{"image": encode(frame), "roi": [10, 10, 60, 60]}, {"image": b"nothing"}]
        )
    assert good.status == 200
    assert set(good.body["heads"]) == {"malignancy", "alnm"}
    assert (bad.status, bad.body["code"]) == (415, "unsupported_image")


def test_its_code_is_its_own_and_is_gone_afterwards(archive_path: Path) -> None:
    before = sys.modules["handlers.errors"]
    path = list(sys.path)
    with load_archive(archive_path) as archive:
        inside = sys.modules["handlers.errors"]
        assert inside is not before
        assert inside.__file__ is not None
        folder = Path(inside.__file__).parent.parent
        assert folder != Path(str(before.__file__)).parent.parent
        assert type(archive.service).__module__ == "service"
    assert sys.modules["handlers.errors"] is before is handlers.errors
    assert "service" not in sys.modules
    assert sys.path == path
    assert not folder.exists()


def test_a_decoded_row_that_fails_leaves_its_neighbours_their_scores(
    archive_path: Path, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"image": encode(frame), "roi": [10, 10, 60 + row, 60]} for row in range(3)]
    with load_archive(archive_path, {"engine": "eager"}) as archive:
        service = archive.service
        prepared = [archive.preprocess(row) for row in rows]
        expected = archive.score_prepared(prepared)
        inference = service.inference

        def fail(batch: Any) -> Any:
            if any(item is prepared[1] for item in batch):
                raise RuntimeError("out of something")
            return inference(batch)

        monkeypatch.setattr(service, "inference", fail)
        found = archive.score_prepared(prepared)
    assert [outcome.status for outcome in expected] == [200] * 3
    assert [outcome.status for outcome in found] == [200, 500, 200]
    assert found[1].body["code"] == "inference_failed"
    for row in (0, 2):
        for head, score in expected[row].body["heads"].items():
            probability = found[row].body["heads"][head]["probability"]
            assert probability == pytest.approx(score["probability"], abs=1e-5)


def test_it_says_when_its_device_is_lost(
    archive_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load_archive(archive_path) as archive:
        assert not archive.device_is_lost()
        monkeypatch.setattr(
            sys.modules["handlers.cuda_health"], "context_is_lost", lambda device: True
        )
        assert archive.device_is_lost()


CLEAN = """
import json, sys
from types import SimpleNamespace
from typing import Any
sys.path.insert(0, sys.argv[1])
import service
made = service.ScoringService()
made.initialize(SimpleNamespace(
    manifest=json.load(open(sys.argv[1] + "/MAR-INF/MANIFEST.json")),
    model_yaml_config={},
    system_properties={"model_dir": sys.argv[1], "gpu_id": None},
))
mine = [m for n, m in sys.modules.items() if n.split(".")[0] in ("handlers", "model_def")]
assert mine and all(m.__file__.startswith(sys.argv[1]) for m in mine), mine
absent = {"sonode", "train", "batch", "archives", "ts", "lightning"} & set(sys.modules)
assert not absent, absent
print(made.model.sha256)
"""


def test_a_clean_interpreter_elsewhere_runs_it(archive_path: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(archive_path) as archive:
        archive.extractall(unpacked)
    # -I: neither the current folder nor PYTHONPATH; the editable install points here, so cut it.
    cut = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", cut + CLEAN, unpacked],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == file_sha256(archive_path)


def test_golden_examples_that_it_does_not_reproduce(archive_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.mar"
    with zipfile.ZipFile(archive_path) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename == "golden/golden.json":
                expected = json.loads(data)
                expected[0]["probabilities"]["alnm"] += 0.01
                data = json.dumps(expected).encode()
            target.writestr(entry, data)
    with pytest.raises(ArchiveError, match=r"golden_0\.png, head alnm: "):
        inspect_archive(path, verify=True)


def test_the_account_of_an_archive(archive_path: Path) -> None:
    facts = inspect_archive(archive_path, verify=True)
    assert facts["verified"] is True
    assert (facts["name"], facts["version"]) == ("tiny", "1.0")
    assert facts["sha256"] == file_sha256(archive_path)
    assert facts["bytes"] == archive_path.stat().st_size
    assert [head["name"] for head in facts["card"]["heads"]] == ["malignancy", "alnm"]
    assert inspect_archive(archive_path, verify=False)["verified"] is False
