"""Radiomics features of one lesion box, by pyradiomics (van Griethuysen et al. 2017).

Cancer Research 77(21):e104, https://pyradiomics.readthedocs.io. Light on purpose: worker processes
import this file, and nothing of it may bring torch.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sonode.console import UserError

FeatureSet = Literal["93", "102"]

# How many features pyradiomics has in each class. The paper says 102 and that shape was left out;
# only with the nine of `shape2D` do they add up to 102, so both sets are offered.
TEXTURE = {"firstorder": 18, "glcm": 24, "gldm": 14, "glrlm": 16, "glszm": 16, "ngtdm": 5}
SHAPE = {"shape2D": 9}

# The paper names no setting. These are pyradiomics' defaults, written out: a reviewer asks.
EXTRACTION: dict[str, Any] = {
    "binWidth": 25,  # grey values per bin, edges at multiples of 25: at most 11 levels of 8 bits
    "distances": [1],  # pixels between neighbours, in the 8 directions of the plane
    "symmetricalGLCM": True,
    "gldm_a": 0,  # neighbours are dependent if their level is equal
    "weightingNorm": None,  # features are averaged over directions
    "voxelArrayShift": 0,  # Energy is that of the grey values as they are
    "normalize": False,
    "resampledPixelSpacing": None,  # stored resolution, one pixel is one unit
}
SMALLEST = 2  # pixels a side; below, pyradiomics has no texture to measure


def require() -> None:
    """Refuse to start without the libraries of the extra `radiomics`.

    Raises UserError: one is absent; the message names the extra.
    """
    try:
        import boruta  # noqa: F401
        import radiomics  # noqa: F401
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"radiomics: {error.name} is not installed; it is in the extra `radiomics`: "
            "pip install -e '.[radiomics]' (a C compiler is needed)"
        ) from error


def feature_names(feature_set: FeatureSet) -> list[str]:
    """The names of the set as pyradiomics gives them (`original_glcm_Contrast`), sorted.

    `93` has no shape feature, yet some grow with the box: Energy, TotalEnergy, *NonUniformity.
    """
    from radiomics import getFeatureClasses

    classes = getFeatureClasses()
    return sorted(
        f"original_{name}_{feature}"
        for name in (*TEXTURE, *(SHAPE if feature_set == "102" else ()))
        for feature, deprecated in classes[name].getFeatureNames().items()
        if not deprecated
    )


def crop_features(crop_HW: npt.NDArray[np.uint8]) -> dict[str, float]:
    """All 102 features of a grey box crop of at least 2 x 2 pixels, by name.

    The whole crop is the region: nobody outlined the lesion. It is framed by one pixel of
    background, because pyradiomics refuses a mask that is all ones ("No labels found"); no feature
    looks at that frame. Intensities go in as float64: in 8 bits pyradiomics' own bin edges overflow
    under numpy 2 (maximum + 2 bin widths).
    """
    import SimpleITK

    region_HW = np.pad(np.ones_like(crop_HW), 1)
    found = _extractor().execute(
        SimpleITK.GetImageFromArray(np.pad(crop_HW, 1).astype(np.float64)),
        SimpleITK.GetImageFromArray(region_HW),
    )
    features = {name: float(value) for name, value in found.items()}
    # pyradiomics logs a feature that fails and gives NaN for it.
    assert np.isfinite(list(features.values())).all()
    return features


def work(crop_HW: npt.NDArray[np.uint8], parent: int) -> dict[str, float]:
    """`crop_features` in a process of a pool that the process `parent` made."""
    if os.getpid() != parent:  # on one core joblib calls it where it is
        _end_with(parent)
    return crop_features(crop_HW)


@functools.cache
def _end_with(parent: int) -> None:
    """End this process when its parent is gone; joblib's wait without end after a SIGKILL."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@functools.cache
def _extractor() -> Any:
    """One extractor a process; it keeps no state between images."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    # It warns at each image that SumAverage is twice JointAverage; failures are errors.
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    extractor = RadiomicsFeatureExtractor(**EXTRACTION, additionalInfo=False)
    extractor.disableAllFeatures()
    for name in (*TEXTURE, *SHAPE):
        extractor.enableFeatureClassByName(name)
    return extractor
