import math
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("radiomics", reason="the extra `radiomics` is not installed")

import SimpleITK
from radiomics.featureextractor import RadiomicsFeatureExtractor

from train.radiomics.features import SHAPE, TEXTURE, crop_features, feature_names


def test_the_two_sets_are_those_of_the_notes() -> None:
    counts = {"firstorder": 18, "glcm": 24, "gldm": 14, "glrlm": 16, "glszm": 16, "ngtdm": 5}
    bare, shaped = feature_names("93"), feature_names("102")
    assert Counter(name.split("_")[1] for name in bare) == counts == TEXTURE
    assert Counter(name.split("_")[1] for name in shaped) == counts | {"shape2D": 9}
    assert set(shaped) - set(bare) == {name for name in shaped if "_shape2D_" in name}
    assert (len(bare), len(shaped), SHAPE) == (93, 102, {"shape2D": 9})


@pytest.mark.parametrize("box", [(20, 10, 90, 55), (0, 0, 120, 80), (5, 60, 7, 62)])
def test_equal_to_pyradiomics_with_its_defaults_on_the_whole_frame(
    frame: np.ndarray, box: tuple[int, int, int, int]
) -> None:
    x_min, y_min, x_max, y_max = box
    # Framed here too, so that the box that fills the frame has a background.
    mask = np.zeros((82, 122), np.uint8)
    mask[y_min + 1 : y_max + 1, x_min + 1 : x_max + 1] = 1
    extractor = RadiomicsFeatureExtractor(additionalInfo=False)
    extractor.enableFeatureClassByName("shape2D")
    extractor.enableFeatureClassByName("shape", enabled=False)
    direct = extractor.execute(
        SimpleITK.GetImageFromArray(np.pad(frame, 1, constant_values=99).astype(np.float64)),
        SimpleITK.GetImageFromArray(mask),
    )
    features = crop_features(frame[y_min:y_max, x_min:x_max])
    assert sorted(features) == sorted(direct) == feature_names("102")
    for name, value in direct.items():
        assert features[name] == pytest.approx(float(value), rel=1e-12, abs=1e-12), name


def test_first_order_by_hand() -> None:
    # 255 and 8 bits: pyradiomics alone would overflow in its bin edges.
    features = crop_features(np.array([[10, 20, 30], [40, 50, 255]], np.uint8))
    expected = {
        "Mean": 67.5,
        "Median": 35,
        "Minimum": 10,
        "Maximum": 255,
        "Range": 245,
        "MeanAbsoluteDeviation": 62.5,  # (57.5 + 47.5 + 37.5 + 27.5 + 17.5 + 187.5) / 6
        "Energy": 70525,
        "TotalEnergy": 70525,
        "RootMeanSquared": math.sqrt(70525 / 6),
        "Variance": 70525 / 6 - 67.5**2,
        "Uniformity": 10 / 36,  # bins of 25 hold 2, 2, 1 and 1 of 6 pixels
        "Entropy": 2 / 3 * math.log2(3) + 1 / 3 * math.log2(6),
    }
    for name, value in expected.items():
        assert features[f"original_firstorder_{name}"] == pytest.approx(value), name
    assert features["original_shape2D_PixelSurface"] == 6


def test_zones_and_dependences_of_pyradiomics_documented_example() -> None:
    # https://pyradiomics.readthedocs.io/en/latest/features.html: image and matrices are theirs.
    levels = [[5, 2, 5, 4, 4], [3, 3, 3, 1, 3], [2, 1, 1, 1, 3], [4, 2, 2, 2, 3], [3, 5, 3, 3, 2]]
    zones = np.array(  # level x size
        [[0, 0, 0, 1, 0], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 0, 0, 0], [3, 0, 0, 0, 0]]
    )
    dependences = np.array(  # level x number of equal neighbours + 1
        [[0, 1, 2, 1], [1, 2, 3, 0], [1, 4, 4, 0], [1, 2, 0, 0], [3, 0, 0, 0]]
    )
    features = crop_features(np.array(levels, np.uint8) * 25)
    size = np.arange(1, 6)
    expected = {
        "glszm_SmallAreaEmphasis": (zones.sum(0) / size**2).sum() / 11,
        "glszm_LargeAreaEmphasis": (zones.sum(0) * size**2).sum() / 11,
        "glszm_ZonePercentage": 11 / 25,
        "glszm_GrayLevelNonUniformity": (zones.sum(1) ** 2).sum() / 11,
        "gldm_SmallDependenceEmphasis": (dependences.sum(0) / size[:4] ** 2).sum() / 25,
        "gldm_LargeDependenceEmphasis": (dependences.sum(0) * size[:4] ** 2).sum() / 25,
        "gldm_DependenceNonUniformity": (dependences.sum(0) ** 2).sum() / 25,
    }
    for name, value in expected.items():
        assert features[f"original_{name}"] == pytest.approx(value), name


def test_grey_tone_differences_of_pyradiomics_documented_example() -> None:
    levels = [[1, 2, 5, 2], [3, 5, 1, 3], [1, 3, 5, 5], [3, 1, 1, 1]]
    # Sums of |level - mean of neighbours|. Theirs, but for level 5, whose sum agrees with their
    # table (10.075) and not with the terms that they print.
    s_1 = 7 / 3 + 11 / 4 + 2 + 8 / 5 + 2 + 8 / 3
    s_2 = 1 + 1
    s_3 = 3 / 5 + 3 / 5 + 1 / 2 + 4 / 3
    s_5 = 12 / 5 + 19 / 8 + 5 / 2 + 14 / 5
    features = crop_features(np.array(levels, np.uint8) * 25)
    weighted = 6 / 16 * s_1 + 2 / 16 * s_2 + 4 / 16 * s_3 + 4 / 16 * s_5
    assert features["original_ngtdm_Coarseness"] == pytest.approx(1 / weighted)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_flat_crop_is_finite_and_silent(grey: int, capfd: pytest.CaptureFixture[str]) -> None:
    features = crop_features(np.full((2, 3), grey, np.uint8))
    assert np.isfinite(list(features.values())).all()
    assert features["original_firstorder_Entropy"] == pytest.approx(0, abs=1e-9)
    assert capfd.readouterr().err == ""
