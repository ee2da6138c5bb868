import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from sonode.console import UserError
from train.cohorts.cohort import Cohort, write_cohort
from train.cohorts.images import read_image
from train.cohorts.similar.near_duplicates import SAME, SIMILAR, thumbnail
from train.cohorts.split import PARTS, Part, part_of
from train.data.datamodule import CohortData
from train.data.leakage import IMAGES, check_unseen, images_of, seen_before
from train.importers.phantom import write_phantom
from train.importers.table import import_voc


def split(folder: Path, seed: int) -> CohortData:
    """The data of a training, as far as what it knows of its images goes."""
    data = CohortData(folder, split_seed=seed)
    patients = data.cohort.table["patient_id"]
    for part in PARTS:
        data.indices[part] = [i for i, it in enumerate(patients) if part_of(it, seed) == part]
    return data


def without_training(data: CohortData) -> dict[Part, list[int]]:
    return {"val": data.indices["val"], "test": data.indices["test"]}


@pytest.fixture
def first(phantom: Cohort, tmp_path: Path) -> Path:
    """The folder of a checkpoint that was trained on the phantom under split seed 4."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / IMAGES).write_bytes(images_of(split(phantom.folder, 4)))
    return folder


def test_weights_that_saw_the_test_part_are_refused(first: Path, phantom: Cohort) -> None:
    weights = first / "weights.safetensors"
    same = split(phantom.folder, 4)
    before = seen_before(weights, same, without_training(same))
    learned = [*same.indices["train"], *same.indices["val"]]
    expected = set(phantom.table["pixels_sha256"].iloc[learned])
    assert set(before["pixels_sha256"].to_pylist()) == expected
    assert set(before["part"].to_pylist()) == {"train"}

    # Under another seed some that it learned from are to be tested on.
    other = split(phantom.folder, 5)
    seen = sorted(set(other.indices["test"]) & set(learned))
    assert seen
    rows: dict[Part, list[int]] = {"test": other.indices["test"]}
    with pytest.raises(
        UserError, match=f"images or patients of {len(seen)} rows? of part"
    ) as found:
        seen_before(weights, other, rows)
    assert found.value.details == [f"row {row}, image: the same pixels" for row in seen]


def test_what_the_first_network_saw_the_second_one_saw(
    first: Path, phantom: Cohort, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "other", 5, 77)
    rows = (tmp_path / "other" / "labels.csv").read_text().replace(",phantom_", ",other_")
    (tmp_path / "other" / "labels.csv").write_text(rows)
    import_voc(tmp_path / "other", tmp_path / "other", name="other", synthetic=True)
    data = split(tmp_path / "other", 0)
    before = seen_before(first / "weights.safetensors", data, without_training(data))
    second = tmp_path / "second"
    second.mkdir()
    (second / IMAGES).write_bytes(images_of(data, before))

    known = pq.read_table(io.BytesIO((second / IMAGES).read_bytes()))
    assert len(known) == len(data.cohort.table) + len(before)
    again = split(phantom.folder, 4)
    learned = sorted([*again.indices["train"], *again.indices["val"]])
    everyone = range(len(phantom.table))
    with pytest.raises(
        UserError, match=f"no evidence; remove {len(learned)} rows of part all "
    ) as found:
        check_unseen(second, again, "all", everyone)
    assert found.value.details == [f"row {row}, image: the same pixels" for row in learned]
    check_unseen(second, again, "test", again.indices["test"])


def test_weights_of_unknown_origin_are_reported(
    phantom: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = split(phantom.folder, 4)
    before = seen_before(tmp_path / "resnet18.pth", data, without_training(data))
    assert len(before) == 0
    assert "has no images.parquet; not checked" in capsys.readouterr().out
    assert images_of(data, before) == images_of(data)


@pytest.fixture
def alike(phantom: Cohort, tmp_path: Path) -> pd.DataFrame:
    """The rows of one image that was learned from, under another id, its picture much changed."""
    learned = split(phantom.folder, 4).indices["train"][0]
    pixels = read_image(phantom.image_path(learned))
    noise = gaussian_filter(np.random.default_rng(0).normal(size=pixels.shape), 6)
    changed = np.clip(pixels + 6 * noise / noise.std(), 0, 255).astype(np.uint8)
    similarity = np.corrcoef(
        *(np.frombuffer(thumbnail(it), np.uint8).astype(float) for it in (pixels, changed))
    )[0, 1]
    assert SIMILAR + 0.01 < similarity < SAME - 0.005
    Image.fromarray(changed).save(tmp_path / "alike.png")
    rows = phantom.table.iloc[[learned]].drop(columns="pixels_sha256").copy()
    rows["image"], rows["patient_id"] = "alike.png", "another"
    return rows


@pytest.mark.parametrize("patient_ids", [True, False])
def test_similar_images_are_reported_and_refused_where_there_are_no_ids(
    first: Path,
    alike: pd.DataFrame,
    tmp_path: Path,
    patient_ids: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    about = {"name": "a", "source": "test", "synthetic": True, "patient_ids": patient_ids}
    write_cohort(tmp_path, alike, **about)  # type: ignore[arg-type]
    data = CohortData(tmp_path, split_seed=4)
    if patient_ids:
        check_unseen(first, data, "all", [0])
        said = capsys.readouterr().out
        assert "similar to images that were learned from (about 0.95 or more)" in said
        assert "the same lesions: 1 row of part all: 0\n" in said
    else:
        with pytest.raises(UserError, match="no evidence; remove 1 row of part all ") as found:
            check_unseen(first, data, "all", [0])
        assert found.value.details[0].startswith("row 0, image: a similar one (about 0.9")


def test_what_a_training_knew_of_its_own_images_stands(
    first: Path, phantom: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its test part was judged by thumbnails; an estimate that is a bit too high must not refuse it.
    data = split(phantom.folder, 4)
    monkeypatch.setattr("train.data.leakage.most_similar", lambda ours, _: np.ones(len(ours)))
    check_unseen(first, data, "test", data.indices["test"])
