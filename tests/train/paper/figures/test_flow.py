"""Figure 1: whatever was left out, its numbers add up."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.pictures import mask, picture
from train.cohorts.cohort import Cohort
from train.cohorts.import_record import RECORD
from train.importers.public_sets.bus_bra import import_bus_bra
from train.paper.figures.flow import flow_section

UNITS = ["patients", "images", "rows"]


def numbers(cohort: Cohort, out: Path) -> pd.DataFrame:
    out.mkdir()
    flow_section(cohort, 4, out)
    return pd.read_csv(out / "tables" / "figure-1.csv", keep_default_na=False, na_values=[""])


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    source = tmp_path / "bus-bra"
    lines = ["ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"]
    for case in range(12):
        for view in "lr":
            name = f"{case:04d}-{view}"
            picture(source / "Images" / f"bus_{name}.png", len(lines))
            mask(source / "Masks" / f"mask_{name}.png", 3, 4, 21, 30)
            pathology = ("benign", "malignant", "")[case % 3]
            lines.append(f"bus_{name},{case},,{pathology},2,,60,50,left,")
    picture(source / "Images" / "bus_0099-l.png", 99)  # no row
    (source / "Images" / "bus_0000-l.png").unlink()  # the other view stays
    for view in "lr":
        mask(source / "Masks" / f"mask_0001-{view}.png", 0, 0, 0, 0)
    (source / "bus_data.csv").write_text("\n".join(lines) + "\n")
    return import_bus_bra(source, tmp_path / "cohort", drop_faulty=True)


def test_every_step_is_the_one_before_less_what_it_left_out(cohort: Cohort, tmp_path: Path) -> None:
    found = numbers(cohort, tmp_path / "out").fillna({"task": ""})
    total = {box: its[its["what"] == "in it"].iloc[0][UNITS] for box, its in found.groupby("box")}
    left = {
        box: its[(its["what"] != "in it") & (its["task"] == "")]
        for box, its in found.groupby("box")
    }
    assert total["source"]["images"] == 25 and pd.isna(total["source"]["patients"])
    assert total["source"]["images"] - left["source"]["images"].sum() == total["rows"]["images"]
    reasons = left["rows"].set_index("what")[UNITS]
    assert reasons.T.to_dict("list") == {
        "image absent, damaged or not accepted": [0, 1, 1],
        "no valid lesion box": [1, 2, 2],
    }
    assert (total["rows"] - reasons.sum()).tolist() == total["cohort"].tolist() == [11, 21, 21]
    parts = ["train", "val", "test"]
    assert np.sum([total[it] for it in parts], axis=0).tolist() == total["cohort"].tolist()
    for part in parts:
        for task in ("malignancy", "alnm"):
            its = found[(found["box"] == part) & (found["task"] == task)]
            assert its["rows"].sum() == total[part]["rows"]


def test_a_cohort_without_a_record_says_so(phantom: Cohort, tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    whole = phantom.folder / "cohort.parquet"
    (tmp_path / "cohort" / whole.name).write_bytes(whole.read_bytes())
    bare = replace(phantom, folder=tmp_path / "cohort")
    (tmp_path / "out").mkdir()
    section = flow_section(bare, 4, tmp_path / "out")
    assert "not recorded" in section.text[0] and not (tmp_path / "cohort" / RECORD).exists()
    table = pd.read_csv(tmp_path / "out" / "tables" / "figure-1.csv")
    assert table["box"].unique().tolist() == ["cohort", "train", "val", "test"]
    # Some lesions of the phantom are benign: of no one is the axilla measured.
    benign = table[table["what"] == "benign"]["rows"].sum()
    assert benign == (~phantom.table["malignant"].astype(bool)).sum()
