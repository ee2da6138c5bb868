import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from sonode.console import UserError
from sonode.files.parquet import ROI_COLUMNS
from tests.command_line import sonode
from train.cohorts.cohort import Cohort, write_cohort
from train.cohorts.images import read_image
from train.cohorts.split import part_of
from train.radiomics import command as radiomics
from train.radiomics import forest
from train.radiomics.features import crop_features, feature_names

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("radiomics") is None, reason="the extra `radiomics` is not installed"
)
SPLIT_SEED = 4  # under it both parts of the 14 patients have both classes of both labels


@pytest.fixture(scope="module", autouse=True)
def short() -> object:
    """Fewer rounds and trees than a study needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(forest.BORUTA, "max_iter", 8)
        patch.setitem(forest.BORUTA, "n_estimators", 30)
        patch.setitem(forest.FOREST, "n_estimators", 30)
        yield


def run(cohort: Cohort, out: Path, reuse: Path | None = None, split_seed: int = SPLIT_SEED) -> None:
    how = {"split_seed": split_seed, "seed": 5, "reuse": reuse, "bootstrap": 100}
    radiomics.run(cohort.folder, out, feature_set="93", **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(phantom: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a run on the phantom."""
    out = tmp_path_factory.mktemp("radiomics") / "deep" / "out"
    run(phantom, out)
    return out


@needs_extra
def test_predictions_are_the_test_part_in_the_layout_of_the_network(
    done: Path, phantom: Cohort
) -> None:
    table = pq.read_table(done / "predictions.parquet")
    record = json.loads((done / "radiomics.json").read_text())
    assert table.schema.names == [
        *("patient_id", "lesion_id", "image", *ROI_COLUMNS, "malignant", "alnm", "n_nodes"),
        *("device", "age", "subtype"),
        *(f"{head}_{what}" for head in record["heads"] for what in ("truth", "probability")),
    ]
    rows = [part_of(patient, SPLIT_SEED) == "test" for patient in phantom.table["patient_id"]]
    tested = phantom.table[rows]
    for column, values in (
        ("patient_id", tested["patient_id"]),
        ("image", tested["image"]),
        ("malignancy_truth", tested["malignant"]),
        ("alnm_truth", tested["alnm"]),
        ("nodes_2_truth", tested["n_nodes"] >= 2),
    ):
        assert table[column].to_pylist() == values.tolist()


@needs_extra
def test_the_record_and_the_report_say_what_a_reviewer_asks(done: Path, phantom: Cohort) -> None:
    record = json.loads((done / "radiomics.json").read_text())
    frame = pd.read_parquet(done / "predictions.parquet")
    about = {"name": "phantom", "sha256": phantom.sha256, "synthetic": True, "patient_ids": True}
    assert record["cohort"] == about
    assert record["split"]["seed"] == SPLIT_SEED
    sizes = [record["split"][part]["patients"] for part in ("train", "test")]
    assert (sum(sizes), sizes[1]) == (14, frame["patient_id"].nunique())
    assert record["settings"]["forest"]["max_depth"] == 300
    assert record["settings"]["extraction"]["binWidth"] == 25
    assert (record["settings"]["feature_set"], record["settings"]["seed"]) == ("93", 5)
    assert [*record["heads"], *record["left_out"]] == [
        *("malignancy", "alnm", "nodes_2", "nodes_3", "nodes_4")
    ]
    malignancy, *others = (found["trained_on"] for found in record["heads"].values())
    assert malignancy["n_images"] == record["split"]["train"]["images"]
    assert {found["n_images"] for found in others} == {malignancy["n_positive"]}

    heads = json.loads((done / "metrics.json").read_text())["heads"]
    assert list(heads) == list(record["heads"])
    found = heads["malignancy"]["sets"]["all"]["image"]["roc_auc"]
    assert found["value"] == pytest.approx(
        roc_auc_score(frame["malignancy_truth"], frame["malignancy_probability"])
    )
    on = frame[frame["malignancy_truth"]]
    found = heads["alnm"]["sets"]["malignancy positive"]["image"]["roc_auc"]
    assert found["value"] == pytest.approx(roc_auc_score(on["alnm_truth"], on["alnm_probability"]))
    page = (done / "report.html").read_text()
    assert "<title>sonode: Radiomics baseline: evaluation</title>" in page
    assert "Calibration of " in page
    assert "Table 1" in page
    assert "Heat maps" not in page


@needs_extra
def test_features_are_those_of_the_bare_boxes_in_order(done: Path, phantom: Cohort) -> None:
    stored = pd.read_parquet(done / "features.parquet")
    assert stored["lesion_id"].tolist() == phantom.table["lesion_id"].tolist()
    assert not stored[feature_names("102")].isna().any().any()
    for index in (0, len(stored) - 1):
        box = phantom.roi(index)
        pixels = read_image(phantom.image_path(index))[box.y_min : box.y_max, box.x_min : box.x_max]
        features = crop_features(pixels)
        assert stored.loc[index, list(features)].to_dict() == features


@needs_extra
def test_features_are_taken_from_an_earlier_run(
    done: Path, phantom: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = pq.read_table(done / "features.parquet")
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    # Another order and one row short: rows are matched by pixels and box, the rest is computed.
    pq.write_table(
        stored.slice(1).take(list(range(stored.num_rows - 1))[::-1]), earlier / "features.parquet"
    )
    cut: list[list[int]] = []
    crops = radiomics._crops
    monkeypatch.setattr(radiomics, "_crops", lambda its, rows: cut.append(rows) or crops(its, rows))
    run(phantom, tmp_path / "out", reuse=earlier)
    assert cut == [[0]]
    for name in ("features.parquet", "predictions.parquet"):
        assert pq.read_table(tmp_path / "out" / name).equals(pq.read_table(done / name))

    other = stored.replace_schema_metadata({b"sonode": b'{"extraction": {"binWidth": 5}}'})
    pq.write_table(other, earlier / "features.parquet")
    with pytest.raises(UserError, match="other settings or another version"):
        run(phantom, tmp_path / "more", reuse=earlier)
    with pytest.raises(UserError, match=r"no features\.parquet"):
        run(phantom, tmp_path / "more", reuse=tmp_path)


@needs_extra
def test_a_folder_in_use_is_refused_and_a_refused_run_leaves_nothing(
    done: Path, phantom: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (done / "radiomics.json").read_bytes()
    with pytest.raises(UserError, match="is not empty; give a new folder"):
        run(phantom, done)
    assert (done / "radiomics.json").read_bytes() == before

    monkeypatch.setattr(radiomics, "RECORD", "no/such")  # the last file cannot be written
    with pytest.raises(FileNotFoundError):
        run(phantom, tmp_path / "out", reuse=done)
    assert list(tmp_path.iterdir()) == []


@needs_extra
def test_boxes_without_texture_are_all_named(phantom: Cohort, tmp_path: Path) -> None:
    rows = phantom.table.drop(columns="pixels_sha256").copy()
    rows["image"] = [str(phantom.image_path(index)) for index in range(len(rows))]
    rows.loc[0, "roi_x_max"] = rows.loc[0, "roi_x_min"] + 1
    rows.loc[3, "roi_y_max"] = rows.loc[3, "roi_y_min"] + 1
    write_cohort(tmp_path / "thin", rows, name="thin", source="test", synthetic=True)
    with pytest.raises(
        UserError, match=r"boxes smaller than 2 x 2 pixels have no texture \(2\)"
    ) as caught:
        radiomics.run(
            tmp_path / "thin", tmp_path / "out", split_seed=0, seed=0, feature_set="93", bootstrap=9
        )
    assert [detail.split(":")[0] for detail in caught.value.details] == ["row 0, roi", "row 3, roi"]


@needs_extra
def test_a_killed_run_leaves_no_process() -> None:
    code = (
        "import os, numpy, joblib\n"
        "from train.radiomics.features import work\n"
        "crop = numpy.random.default_rng(0).integers(0, 256, (200, 200), dtype=numpy.uint8)\n"
        "jobs = (joblib.delayed(work)(crop, os.getpid()) for _ in range(9999))\n"
        "for _ in joblib.Parallel(n_jobs=2, return_as='generator')(jobs):\n"
        "    print('done', flush=True)\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=20)
    assert workers
    assert alive == []


@pytest.mark.parametrize("absent", ["radiomics", "boruta", "sklearn"])
def test_without_the_libraries_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    for name in ("radiomics", "boruta", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None if name == absent else np)
    with pytest.raises(UserError, match=f"{absent} is not installed; it is in the extra"):
        radiomics.run(
            tmp_path, tmp_path / "out", split_seed=0, seed=0, feature_set="93", bootstrap=9
        )


def test_an_unknown_set_of_features_is_one_line(tmp_path: Path) -> None:
    answer = sonode("radiomics", "a", "b", "--features", "99", cwd=tmp_path)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert "--features" in answer.stderr
