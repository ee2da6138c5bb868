"""Figures 4 to 6 from probabilities that are written down."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from train.fitting.predictions import Predictions
from train.paper.figures.heat_maps import heat_maps_section
from train.paper.figures.pictures import Panel, pasted

TRUTH = {  # patient, malignancy, ALNM
    0: ("a", False, None),
    1: ("b", False, None),
    2: ("c", True, False),
    3: ("c", True, False),
    4: ("d", True, True),
    5: ("d", True, True),
    6: ("e", True, True),
}


def said(malignancy: list[float], alnm: list[float], chain: bool = False) -> Predictions:
    patient, malignant, positive = zip(*TRUTH.values(), strict=True)
    frame = pd.DataFrame(
        {
            "patient_id": [f"secret-{it}" for it in patient],
            "malignancy_truth": pd.array(malignant, "boolean"),
            "alnm_truth": pd.array(positive, "boolean"),
            "malignancy_probability": malignancy,
            "alnm_probability": alnm,
        }
    )
    return Predictions(
        frame=frame,
        heads=(),
        hierarchy="independent",
        about={},
        crops=[np.full((48, 96), 100, np.uint8)] * len(frame),
        cams={head: np.ones((7, 4, 4), np.float32) for head in ("malignancy", "alnm")},
        explained={"alnm": ["malignancy"] * 7} if chain else {},
    )


NETWORKS = {
    # Inconsistent: 0 and 1 (type 1, gaps 0.3 and 0.5), 5 (type 2).
    "multi-task": said([0.3, 0.4, 0.9, 0.9, 0.9, 0.2, 0.9], [0.6, 0.9, 0.1, 0.1, 0.9, 0.7, 0.9]),
    "multi-task + HL": said(
        [0.1, 0.2, 0.8, 0.95, 0.9, 0.7, 0.8], [0.2, 0.1, 0.2, 0.03, 0.6, 0.9, 0.7]
    ),
    "chain": said([0.1, 0.2, 0.8, 0.9, 0.9, 0.7, 0.8], [0.0, 0.1, 0.2, 0.1, 0.6, 0.6, 0.7], True),
    "single alnm": said([0.0] * 7, [0.1, 0.1, 0.1, 0.1, 0.8, 0.7, 0.4]),
}


def test_the_rules_choose_one_image_a_patient(tmp_path: Path) -> None:
    found = heat_maps_section(NETWORKS.__getitem__, list(NETWORKS), tmp_path, synthetic=True)
    type_1, type_2, figure_5, figure_6 = found.figures
    assert "Figure 4, type 1" in type_1.caption and "Figure 4, type 2" in type_2.caption
    assert "multi-task: Malignancy 0.40; multi-task: ALNM 0.90" in type_1.alt
    assert "multi-task + HL: Malignancy 0.20; multi-task + HL: ALNM 0.10" in type_1.alt
    assert "multi-task 2, multi-task + HL 0, chain 0" in type_1.caption
    assert "multi-task: Malignancy 0.20; multi-task: ALNM 0.70" in type_2.alt
    # By the less sure head: row 0 (0.3) before 1; 3 (0.45) before 2; 5 and 6 have 0.2, 4 has 0.1.
    assert [it.split(": ")[-1] for it in figure_5.alt.split("; ")[1:]] == [
        *("Malignancy 0.10", "ALNM 0.20"),
        *("Malignancy 0.95", "ALNM 0.03"),
        *("Malignancy 0.70", "ALNM 0.90"),
    ]
    assert "benign 2 of 2; malignant without ALNM 2 of 2; malignant with ALNM 3 of 3" in (
        figure_5.caption
    )
    # The patient of 4 and 5 once (means 0.7 and 0.8); 6 is missed by the single-task network.
    assert figure_6.alt == ("Heat maps; multi-task + HL: ALNM 0.90; single alnm: ALNM 0.70")
    assert all("SYNTHETIC" in it.caption for it in found.figures)
    assert not any("secret" in text for it in found.figures for text in (it.alt, it.caption))
    for it in found.figures:
        assert (tmp_path / it.file).stat().st_size < 200_000


def test_where_there_is_no_such_case_the_text_says_why(tmp_path: Path) -> None:
    right = said([0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9], [0.1] * 7)
    networks = {**NETWORKS, "multi-task": right, "multi-task + HL": right, "single alnm": right}
    found = heat_maps_section(networks.__getitem__, list(networks), tmp_path, synthetic=False)
    assert [it.caption[:9] for it in found.figures] == ["Figure 5."]
    text = " ".join(found.text)
    assert "Figure 4, type 1: absent" in text and "Figure 4, type 2: absent" in text
    assert "Figure 5 has no malignant with ALNM lesion: both heads call 0 of 3 right" in text
    assert "Figure 6 is absent: both networks call 0 of 3 images with ALNM right" in text
    alone = heat_maps_section(networks.__getitem__, ["single alnm"], tmp_path, synthetic=False)
    assert not alone.figures and len(alone.text) == len(found.text) - 1


def test_panels_are_pasted_side_by_side_at_the_width_of_a_map() -> None:
    grey = Panel(["text"], np.full((10, 20), 200, np.uint8))
    image = Image.open(io.BytesIO(pasted([[grey, None], [None, grey]]))).convert("RGB")
    assert image.size == (8 + 2 * (288 + 8), 8 + 2 * (16 + 8 + 144))
    assert image.getpixel((20, 100)) == (200, 200, 200) == image.getpixel((320, 268))
    assert image.getpixel((320, 100)) == (0, 0, 0) == image.getpixel((20, 268))
