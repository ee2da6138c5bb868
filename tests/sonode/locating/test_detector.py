import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_def.preprocessing import RoI
from sonode.console import UserError
from sonode.locating import detector as detectors


class Fixed(nn.Module):
    """Proposes boxes of the input, whatever it shows."""

    def __init__(self, *boxes: tuple[float, ...]) -> None:
        super().__init__()
        self.boxes, self.seen = boxes, torch.empty(0)

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        (self.seen,) = images
        scores = torch.linspace(0.9, 0.1, len(self.boxes))
        return [{"boxes": torch.tensor(self.boxes).reshape(-1, 4), "scores": scores}]


def test_boxes_are_in_pixels_of_the_frame_that_was_given() -> None:
    """A frame of 200 x 100 is seen as 64 x 32."""
    detector = Fixed((16.0, 8.0, 32.0, 16.0), (-1.0, -1.0, 65.0, 33.0), (0.0, 0.0, 0.1, 9.0))
    frame = np.zeros((100, 200), np.uint8)
    found = detectors.proposals(detector, frame, 64)  # type: ignore[arg-type]
    assert detector.seen.shape == (3, 32, 64)
    assert [its.roi for its in found] == [RoI(50, 25, 100, 50), RoI(0, 0, 200, 100)]  # none empty
    assert [its.confidence for its in found] == pytest.approx([0.9, 0.5])


def test_read_gives_what_was_written(locator: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    one, other = (detectors.read(locator) for _ in range(2))
    assert one.sha256 == other.sha256
    found = detectors.proposals(one.detector, frame, one.card.size)
    assert found
    assert found == detectors.proposals(other.detector, frame, 64)
    assert all(its.roi.lies_inside(70, 50) for its in found)


@pytest.mark.parametrize("change", [{"kind": "other"}, {"format": 2}, {"more": 1}, {"size": 0}])
def test_another_format_is_refused_by_field(
    locator: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    folder = tmp_path / "it"
    shutil.copytree(locator, folder)
    card = json.loads((folder / detectors.CARD).read_text())
    (folder / detectors.CARD).write_text(json.dumps(card | change))
    with pytest.raises(UserError, match=rf"field {next(iter(change))}: "):
        detectors.read(folder)


def test_what_is_no_locator_is_refused(
    locator: Path, checkpoint_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"has no locator\.json"):
        detectors.read(checkpoint_folder)
    folder = tmp_path / "it"
    shutil.copytree(locator, folder)
    shutil.copy(checkpoint_folder / "weights.safetensors", folder)
    with pytest.raises(UserError, match="of another locator"):
        detectors.read(folder)
    (folder / detectors.WEIGHTS).write_bytes(b"cut")
    with pytest.raises(UserError, match="damaged"):
        detectors.read(folder)
