"""From a cohort to a locator, its evidence, and a night without boxes."""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from archives.packing.loader import load_archive
from batch import run
from batch.results import schema
from sonode.console import progress
from sonode.locating import detector as detectors
from tests.batch.conftest import put_table
from tests.command_line import sonode
from train.cohorts.cohort import Cohort

FIT = ("--epochs=1", "--size=64", "--weights=none", "--split-seed=4")


@pytest.fixture(scope="module")
def fitted(phantom: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("locate") / "locator"
    done = sonode("locate", "fit", str(phantom.folder), str(out), *FIT)
    assert done.returncode == 0, done.stderr
    return out


def test_the_card_says_what_was_learned_from(fitted: Path, phantom: Cohort) -> None:
    card = detectors.read(fitted).card
    cohort = card.training["cohort"]
    assert (cohort["name"], cohort["sha256"]) == ("phantom", phantom.sha256)
    assert card.training["epochs"] == 1
    assert card.measured["images"] == cohort["val"]["images"]
    assert cohort["train"]["boxes"] >= cohort["train"]["images"] > 0


def test_a_second_fit_does_not_replace_the_first(fitted: Path, phantom: Cohort) -> None:
    before = (fitted / detectors.WEIGHTS).read_bytes()
    done = sonode("locate", "fit", str(phantom.folder), str(fitted), *FIT)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert (fitted / detectors.WEIGHTS).read_bytes() == before


def test_evidence_of_the_test_part(
    fitted: Path, phantom: Cohort, checkpoint_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evidence"
    given = ("locate", "evaluate", str(fitted), str(phantom.folder), str(out))
    done = sonode(*given, "--bootstrap=100")
    assert done.returncode == 0, done.stderr
    numbers = json.loads((out / "locate.json").read_text())
    table = pd.read_parquet(out / "proposals.parquet")
    assert numbers["images"] == len(table) > 0
    assert (
        numbers["none_found"]
        == (
            table["confidence"].isna()
            | (table["confidence"] < numbers["locator"]["min_confidence"])
        ).sum()
    )
    assert sonode(*given).returncode == 2  # it is not empty
    refused = sonode(*given[:-1], str(tmp_path / "all"), "--part=all")
    assert refused.returncode == 2
    assert "was trained on" in refused.stderr


def test_from_a_manifest_without_boxes_to_scores(
    fitted: Path, phantom: Cohort, archive_path: Path, tmp_path: Path
) -> None:
    images = [str(phantom.folder / it) for it in phantom.table["image"].unique()[:3]]
    manifest = put_table(str(tmp_path / "m.parquet"), {"image_uri": [*images, "none.png"]})
    located = tmp_path / "located.parquet"
    given = ("locate", "propose", str(fitted), manifest, str(located))
    done = sonode(*given, "--min-confidence=0")
    assert done.returncode == 1, done.stderr  # an image is absent
    rows = pq.read_table(located).to_pylist()
    out = str(tmp_path / "out")
    with load_archive(archive_path) as archive:
        run.score(str(located), out, archive, explain=None, progress=progress)
    scored = schema.read(out).to_pylist()
    assert [row["status"] for row in scored] == [row["locate_status"] for row in rows]
    assert scored[3]["code"] == "object_missing"
    for row, result in zip(rows, scored, strict=True):
        assert result["roi_confidence"] == row["roi_confidence"]
        if row["roi_proposed"]:
            names = ("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max")
            assert result["roi_used"] == [row[name] for name in names]
