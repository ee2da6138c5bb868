import numpy as np
import pytest

from handlers.errors import InvalidRoI
from handlers.images.prepare import Prepared, prepare
from handlers.requests import Explain, ScoringRequest
from model_def.preprocessing import Preprocessing, RoI
from tests.conftest import encode


def prepare_frame(frame: np.ndarray, roi: RoI | None) -> Prepared:
    return prepare(ScoringRequest(encode(frame), roi, None), Preprocessing(size=64))


def test_the_roi_is_cropped_and_resized(frame: np.ndarray) -> None:
    prepared = prepare_frame(frame, RoI(10, 20, 40, 70))
    assert (prepared.crop_HW == frame[20:70, 10:40]).all()
    assert prepared.input_SS.shape == (64, 64)
    assert prepared.warnings == []


def test_a_crop_does_not_keep_the_frame_in_memory(frame: np.ndarray) -> None:
    assert prepare_frame(frame, RoI(10, 20, 40, 70)).crop_HW.base is None


def test_the_full_frame_is_kept_for_a_row_that_asks_for_a_map_in_it_alone(
    frame: np.ndarray,
) -> None:
    """A batch holds many rows: of the others only the frame's size is used."""
    for full_frame in (True, False):
        explain = Explain("gradcam", ("alnm",), full_frame=full_frame)
        request = ScoringRequest(encode(frame), RoI(10, 20, 40, 70), explain)
        prepared = prepare(request, Preprocessing(size=64))
        assert prepared.frame_size == frame.shape
        assert (prepared.frame_HW is not None) == full_frame
        if full_frame:
            assert (prepared.frame_HW == frame).all()
    assert prepare_frame(frame, RoI(10, 20, 40, 70)).frame_HW is None


def test_no_roi_means_the_whole_frame_and_is_flagged(frame: np.ndarray) -> None:
    prepared = prepare_frame(frame, None)
    assert prepared.roi == (0, 0, 120, 80)
    assert prepared.warnings == ["whole_frame"]


def test_a_roi_may_touch_the_edges(frame: np.ndarray) -> None:
    assert (prepare_frame(frame, RoI(0, 0, 120, 80)).crop_HW == frame).all()


@pytest.mark.parametrize(
    "roi",
    [(0, 0, 121, 80), (0, 0, 120, 81), (-1, 0, 9, 9), (0, -1, 9, 9), (9, 0, 9, 9), (9, 5, 3, 9)],
)
def test_a_roi_outside_or_empty_is_refused_not_clipped(
    frame: np.ndarray, roi: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidRoI, match="120 x 80") as caught:
        prepare_frame(frame, RoI(*roi))
    assert (caught.value.status, caught.value.field) == (422, "roi")
