import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from model_def.heads import HeadSpec
from model_def.overlay import LINE_HEIGHT
from train.evidence.saliency import gallery, profile
from train.fitting.predictions import Predictions


def predictions(heads: tuple[HeadSpec, ...], cam_44: np.ndarray) -> Predictions:
    frame = pd.DataFrame(
        {
            "patient_id": list("abcde"),
            "malignancy_truth": pd.array([True, False, True, False, None], dtype="boolean"),
            "malignancy_probability": [0.9, 0.1, 0.2, 0.8, 0.3],
            "alnm_truth": pd.array([True, None, False, None, None], dtype="boolean"),
            "alnm_probability": [0.8, 0.1, 0.6, 0.1, 0.1],
        }
    )
    cams = np.stack([cam_44] * 5).astype(np.float32)
    return Predictions(
        frame=frame,
        heads=heads,
        hierarchy="independent",
        about={},
        crops=[np.full((40, 60), 90, np.uint8)] * 5,
        cams={head.name: cams for head in heads},
    )


def test_each_kind_of_case_is_shown_and_named(heads: tuple[HeadSpec, ...]) -> None:
    found = gallery(predictions(heads, np.ones((4, 4))))
    assert [item.title for item in found] == [
        "malignancy: right, malignant",
        "malignancy: right, benign",
        "malignancy: missed, malignant",
        "malignancy: false alarm, benign",
        "alnm: right, ALNM",
        "alnm: false alarm, no ALNM",
        "alnm: inconsistent with malignancy",
    ]
    incoherent = found[-1]
    assert incoherent.caption == (
        "malignancy 0.20 (threshold 0.50, truth: malignant); "
        "alnm 0.60 (threshold 0.50, truth: no ALNM)"
    )
    assert found[1].caption.endswith("alnm 0.10 (threshold 0.50, truth: unknown)")
    assert Image.open(io.BytesIO(incoherent.png_bytes)).size == (288, 192 + 3 * LINE_HEIGHT)


def test_a_patient_is_shown_once_by_the_surest_image(heads: tuple[HeadSpec, ...]) -> None:
    made = predictions(heads, np.ones((4, 4)))
    made.frame["patient_id"] = ["a", "b", "a", "a", "b"]
    made.frame["malignancy_truth"] = pd.array([True] * 5, dtype="boolean")
    made.frame["malignancy_probability"] = [0.9, 0.6, 0.95, 0.8, 0.7]
    shown = [it.caption for it in gallery(made) if it.title == "malignancy: right, malignant"]
    assert [it.partition(";")[0] for it in shown] == [
        "malignancy 0.95 (threshold 0.50, truth: malignant)",
        "malignancy 0.70 (threshold 0.50, truth: malignant)",
    ]


def test_a_caption_shows_on_which_side_of_the_threshold_a_case_lies(
    heads: tuple[HeadSpec, ...],
) -> None:
    made = predictions(heads, np.ones((4, 4)))
    made.frame["malignancy_probability"] = [0.5004, 0.1, 0.4996, 0.5, 0.3]
    made.frame["malignancy_truth"] = pd.array([True, None, True, False, None], dtype="boolean")
    found = {it.title: it.caption for it in gallery(made)}
    assert found["malignancy: right, malignant"].startswith("malignancy 0.5004 (threshold 0.5000,")
    assert found["malignancy: missed, malignant"].startswith("malignancy 0.4996 (threshold 0.5000,")
    assert found["malignancy: right, benign"].startswith("malignancy 0.50 (threshold 0.50,")


def test_a_flat_map_has_a_flat_profile(heads: tuple[HeadSpec, ...]) -> None:
    its = profile(predictions(heads, np.full((4, 4), 3.0)))["alnm"]
    radius, response, sd, images, cells = its
    assert tuple(cells) == (4, 4) and its.resolution == "A map has 4 x 4 cells."
    assert sd == pytest.approx([0] * len(radius), abs=1e-6) and images == 5
    assert response == pytest.approx([1.0] * len(radius))
    assert 0 < radius[0] < radius[-1] < np.sqrt(2)


def test_a_central_map_falls_off(heads: tuple[HeadSpec, ...]) -> None:
    cam = np.zeros((4, 4))
    cam[1:3, 1:3] = 5
    response = profile(predictions(heads, cam))["malignancy"].mean
    assert response[0] == pytest.approx(1)
    assert response[-1] == pytest.approx(0)
    assert all(a >= b for a, b in pairwise(response))


def test_a_map_of_four_cells_says_that_it_shows_no_centre(heads: tuple[HeadSpec, ...]) -> None:
    its = profile(predictions(heads, np.array([[9.0, 1.0], [0.0, 4.0]])))["malignancy"]
    assert its.mean == pytest.approx([14 / 9 / 4] * len(its.mean))  # whatever is in the cells
    assert "A map has 2 x 2 cells" in its.resolution
    assert "the lines are level in any case" in its.resolution


def test_the_spread_of_a_profile_is_that_of_images(heads: tuple[HeadSpec, ...]) -> None:
    made = predictions(heads, np.ones((4, 4)))
    central = np.zeros((4, 4), np.float32)
    central[1:3, 1:3] = 7
    made.cams["alnm"][2:4] = central  # type: ignore[index]
    made.cams["alnm"][4] = 0  # no response: left out
    its = profile(made)["alnm"]
    # In the corner two of four respond with 1 and two with 0.
    assert its.images == 4 and its.sd is not None
    assert (its.mean[-1], its.sd[-1]) == (pytest.approx(0.5), pytest.approx(np.sqrt(1 / 3)))


def test_dead_maps_have_no_profile(heads: tuple[HeadSpec, ...]) -> None:
    assert profile(predictions(heads, np.zeros((4, 4)))) == {}


def test_a_heat_map_of_another_heads_logit_says_so(heads: tuple[HeadSpec, ...]) -> None:
    made = predictions(heads, np.ones((4, 4)))
    explained = {"malignancy": ["alnm", *["malignancy"] * 4], "alnm": ["alnm"] * 5}
    found = {item.title: item.caption for item in gallery(replace(made, explained=explained))}
    assert found["malignancy: right, malignant"].endswith(
        "; heat map of alnm, which decides malignancy"
    )
    assert not any("heat map" in said for title, said in found.items() if title.startswith("alnm"))
