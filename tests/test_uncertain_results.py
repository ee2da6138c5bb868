"""What training finds about certainty is in the checkpoint, the archive, and every answer."""

from pathlib import Path

import numpy as np
import pytest

from archives.packing.loader import load_archive
from archives.packing.pack import pack
from model_def import checkpoint
from tests.conftest import encode
from tests.train.trainings import train
from train.cohorts.cohort import Cohort
from train.fitting.predictions import predict


@pytest.fixture
def trained(phantom: Cohort, tmp_path: Path) -> Path:
    """A checkpoint, with promises that two calibration patients are enough for."""
    promises = ("--model.label_set_level=0.5", "--model.false_alarms=0.5")
    done = train("fit", phantom.folder, tmp_path / "out", "--trainer.max_epochs=1", *promises)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out" / "checkpoint"


def test_from_training_to_the_answer(trained: Path, phantom: Cohort, tmp_path: Path) -> None:
    card = checkpoint.read_card(trained)
    sets, limit = card.heads[0].label_sets, card.out_of_distribution
    assert sets is not None
    assert sets.least is not None
    assert limit is not None
    assert limit.limit is not None
    frame = predict(trained, phantom.folder, "test").frame
    assert frame["malignancy_uncertain"].notna().all()
    distances = frame["out_of_distribution_distance"]
    assert frame["out_of_distribution"].tolist() == (distances > limit.limit).tolist()
    archive_path = pack(trained, "sure", "1.0", tmp_path / "store")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    images = [(phantom.folder / str(image)).read_bytes() for image in phantom.table["image"][:20]]
    rows = [{"image": image} for image in (*images, encode(noise))]
    found = {}
    for engine in ("eager", "openvino-fp32"):
        with load_archive(archive_path, {"engine": engine}) as archive:
            found[engine] = [outcome.body for outcome in archive.score(rows)]
            assert archive.promises["out_of_distribution"] == {
                "limit": limit.limit,
                "false_alarms": 0.5,
                "patients": limit.patients,
            }
            promised = archive.promises["label_sets"]["malignancy"]
            assert promised == {"level": 0.5, "given": None, "patients": sets.patients}
    for eager, openvino in zip(*found.values(), strict=True):
        for body in (eager, openvino):
            head = body["heads"]["malignancy"]
            p, labels = head["probability"], head["label_set"]["labels"]
            reached = [p <= 1 - sets.least["benign"], p >= sets.least["malignant"]]
            both = ["benign", "malignant"]
            assert labels == (
                [it for it, is_in in zip(both, reached, strict=True) if is_in] or both
            )
            assert head["uncertain"] is (labels != [head["label"]])
            said = body["out_of_distribution"]
            assert said["flagged"] is (said["distance"] > limit.limit)
            assert ("out_of_distribution" in body["warnings"]) is said["flagged"]
        one, other = (body["out_of_distribution"]["distance"] for body in (eager, openvino))
        assert one == pytest.approx(other, rel=0.01)
    assert found["eager"][-1]["out_of_distribution"]["flagged"]
