from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sonode.console import UserError
from train.cohorts.cohort import Cohort
from train.importers.phantom import HEIGHT, SUBTYPES, WIDTH, Lesion, render, write_phantom
from train.importers.table import import_voc


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_growing_keeps_the_old(tmp_path: Path) -> None:
    for name, patients, seed in (("a", 3, 7), ("b", 3, 7), ("more", 4, 7), ("other", 3, 8)):
        write_phantom(tmp_path / name, patients, seed)
    a, b, more, other = (files(tmp_path / name) for name in ("a", "b", "more", "other"))
    assert a == b
    pictures = {name: data for name, data in a.items() if name != "labels.csv"}
    assert pictures.items() <= more.items()
    assert not set(pictures.values()) & set(other.values())
    patients = {
        name: set(pd.read_csv(tmp_path / name / "labels.csv")["patient_id"])
        for name in ("a", "other")
    }
    assert len(patients["a"]) == len(patients["other"]) == 3
    assert not patients["a"] & patients["other"]  # so that one may be external to the other


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match="is not empty"):
        write_phantom(tmp_path, 1, 0)


def test_every_label_is_there_with_several_images_per_patient(phantom: Cohort) -> None:
    table = phantom.table
    assert phantom.synthetic
    assert not table.drop(columns=["pixels_sha256", "subtype"]).isna().any().any()
    assert (table["subtype"].isna() == ~table["malignant"]).all()
    assert set(table["subtype"].dropna()) <= set(SUBTYPES)
    assert table["age"].between(18, 91).all()
    assert (table.groupby("patient_id")[["age", "subtype"]].nunique() <= 1).all().all()
    assert table.groupby("patient_id").size().between(2, 4).all()
    assert (table["alnm"] == (table["n_nodes"] > 0)).all()
    assert table["malignant"].nunique() == table["alnm"].nunique() == 2


def test_speckle_is_fully_developed() -> None:
    # The envelope of many scatterers is Rayleigh: its log has a standard deviation of 5.57 dB
    # (Wagner et al. 1983), wherever the tissue is uniform.
    flat = Lesion(30, 20, 0, 1, 0, 0, 6)
    pixels, _ = render(np.random.default_rng(0), flat, 0)
    patches = pixels[90:270].astype(float).reshape(9, 20, 18, 20).std(axis=(1, 3)) / 255 * 46
    assert np.median(patches) == pytest.approx(5.57, rel=0.12)


def test_the_box_holds_the_lesion() -> None:
    dark = Lesion(50, 35, 0.05, 1, 0, 0, 6)
    for seed in range(5):
        pixels, roi = render(np.random.default_rng(seed), dark, 0)
        assert 0 <= roi.x_min < roi.x_max <= WIDTH
        assert 0 <= roi.y_min < roi.y_max <= HEIGHT
        assert 90 < roi.x_max - roi.x_min < 140
        middle = pixels[(roi.y_min + roi.y_max) // 2 - 9 :, (roi.x_min + roi.x_max) // 2 - 9 :]
        beside = pixels[roi.y_min : roi.y_max, : roi.x_min]
        assert middle[:18, :18].mean() < 0.75 * beside.mean()


def test_a_halo_is_a_bright_rim_and_a_shadow_lies_behind() -> None:
    plain = Lesion(50, 35, 0, 1, 0, 0, 8)
    views = {
        name: render(np.random.default_rng(4), lesion, 0)[0].astype(float)
        for name, lesion in {
            "plain": plain,
            "halo": plain._replace(halo_db=9.0),
            "shadow": plain._replace(posterior_db=-9.0),
        }.items()
    }
    _, roi = render(np.random.default_rng(4), plain, 0)
    x, y = (roi.x_min + roi.x_max) // 2, (roi.y_min + roi.y_max) // 2
    rim = np.s_[y - 10 : y + 10, x + 53 : x + 58]
    behind = np.s_[y + 50 : y + 90, x - 20 : x + 20]
    aside = np.s_[y - 10 : y + 10, : x - 80]
    # 9 dB of a 46 dB range are 50 grey levels; the rim is softer than its peak, and images are
    # normalised to their own brightest speckle.
    assert (views["halo"] - views["plain"])[rim].mean() > 20
    assert (views["shadow"] - views["plain"])[behind].mean() < -30
    assert abs((views["halo"] - views["plain"])[aside].mean()) < 8


def test_sizes_and_shapes_carry_the_labels(tmp_path: Path) -> None:
    write_phantom(tmp_path, 40, 3)
    cohort = import_voc(tmp_path, tmp_path, name="phantom", synthetic=True)
    boxes = np.array([cohort.roi(index) for index in range(len(cohort.table))])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    malignant = cohort.table["malignant"].to_numpy(dtype=bool)
    alnm = cohort.table["alnm"].to_numpy(dtype=bool)
    assert 0.65 < roc_auc_score(malignant, height / width) < 1
    assert 0.6 < roc_auc_score(alnm[malignant], (height * width)[malignant]) < 1
