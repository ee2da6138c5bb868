"""The distance of an image's features from the training's, by hand."""

from pathlib import Path

import numpy as np
import pytest

from model_def.outliers import FILE, Distance, OutlierLimit, load

DISTANCE = Distance(
    mean_C=np.array([0.5, 0, 0, 0], np.float32),
    axes_rC=np.array([[1, 0, 0, 0]], np.float32),
    variance_r=np.array([4], np.float32),
    rest=0.25,
)
LIMIT = OutlierLimit(false_alarms=0.05, patients=20, limit=1.0)


def test_within_the_axes_and_beside_them() -> None:
    features = np.array([[2, 0, 0, 0], [0, 3, 0, 0], [6, 8, 0, 0], [0, 0, 0, 0]], np.float32)
    # Of length one: (1, 0), (0, 1), (0.6, 0.8) and nothing. So 0.5^2 / 4 along the axis, and the
    # square of the second feature / 0.25 beside it; over four features.
    along = np.array([0.5, 0.5, 0.1, 0.5]) ** 2 / 4
    beside = np.array([0, 1, 0.8, 0]) ** 2 / 0.25
    np.testing.assert_allclose(DISTANCE.scores(features), (along + beside) / 4, rtol=1e-5)


def test_the_file_goes_with_the_cards_limit(tmp_path: Path) -> None:
    refused = OutlierLimit(false_alarms=0.05, patients=3, limit=None, why="too few")
    assert load(tmp_path, None) is load(tmp_path, refused) is None
    with pytest.raises(ValueError, match=rf"{FILE}: absent or damaged"):
        load(tmp_path, LIMIT)
    (tmp_path / FILE).write_bytes(DISTANCE.content())
    found = load(tmp_path, LIMIT)
    assert found is not None
    assert found.rest == DISTANCE.rest
    for name in ("mean_C", "axes_rC", "variance_r"):
        np.testing.assert_array_equal(getattr(found, name), getattr(DISTANCE, name))
    (tmp_path / FILE).write_bytes(DISTANCE.content()[:-3])
    with pytest.raises(ValueError, match=rf"{FILE}: absent or damaged"):
        load(tmp_path, LIMIT)
