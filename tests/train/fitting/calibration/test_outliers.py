import numpy as np
import pytest
from sklearn.decomposition import PCA

from model_def.outliers import Floats
from train.fitting.calibration import outliers


def features(n: int, seed: int) -> Floats:
    """Of 50 features, in three of which images differ most."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(n, 50)) * ([5, 4, 3] + [1] * 47)).astype(np.float32)


def test_the_distance_is_the_mahalanobis_distance_under_probabilistic_pca() -> None:
    seen, new = features(200, 0), features(20, 1)
    distance = outliers.fit(seen)
    assert distance.axes_rC.shape == (outliers.AXES, 50)
    seen_1, new_1 = (its / np.linalg.norm(its, axis=1)[:, None] for its in (seen, new))
    off = new_1 - seen_1.mean(axis=0)
    precision = PCA(outliers.AXES, svd_solver="full").fit(seen_1).get_precision()
    of_sklearn = np.einsum("nc,cd,nd->n", off, precision, off) * 200 / 199 / 50
    np.testing.assert_allclose(distance.scores(new), of_sklearn, rtol=1e-3)
    assert distance.scores(seen).mean() == pytest.approx(1, abs=1e-3)


def test_few_training_images_have_fewer_axes() -> None:
    assert outliers.fit(features(20, 0)).axes_rC.shape == (10, 50)


def test_a_limit_needs_patients() -> None:
    seen = features(200, 0)
    patients = [f"p{number // 2}" for number in range(38)]

    def never() -> Floats:
        raise AssertionError("asked for nothing")

    distance, limit = outliers.flag(never, features(36, 1), patients[:36], 0.05)
    assert distance is None
    assert (limit.limit, limit.patients) == (None, 18)
    assert limit.why == "too few: 18 calibration patients; 0.05 needs 19"
    distance, limit = outliers.flag(lambda: seen, features(38, 1), patients, 0.05)
    assert distance is not None
    # 19 of 20 shares are all that there is.
    assert limit.limit == distance.scores(features(38, 1)).max()
    assert (limit.why, limit.patients, limit.false_alarms) == (None, 19, 0.05)
    elsewhere = features(5, 2)
    elsewhere[:, 10] += 40
    assert (distance.scores(elsewhere) > limit.limit).all()
