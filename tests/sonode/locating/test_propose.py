import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from batch.storage import objects
from model_def.preprocessing import RoI
from sonode.console import UserError
from sonode.locating import propose as proposing
from sonode.locating.detector import Proposal
from tests.batch.conftest import put_table
from tests.conftest import encode


@pytest.fixture(autouse=True)
def bright(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that boxes what is bright, as sure as its brightness; that of torch is slow."""

    def found(_: Any, frame_HW: Any, size: int) -> list[Proposal]:
        y, x = np.nonzero(frame_HW > 100)
        if not len(y):
            return []
        box = RoI(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
        return [Proposal(box, float(frame_HW.max()) / 255)]

    monkeypatch.setattr(proposing, "proposals", found)


def image(value: int) -> bytes:
    pixels = np.zeros((60, 80), np.uint8)
    pixels[10:20, 30:70] = value
    return encode(pixels)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Images that are sure, unsure, empty, damaged and absent; and one with a drawn box."""
    (tmp_path / "images").mkdir()
    for name, data in {"a": image(255), "b": image(128), "c": image(0), "d": image(255)}.items():
        (tmp_path / "images" / f"{name}.png").write_bytes(
            data[: len(data) // 2] if name == "d" else data
        )
    columns = {
        "image_uri": [f"images/{name}.png" for name in "abcdea"],
        "study_id": list("uvwxyz"),
        **dict.fromkeys(("roi_x_min", "roi_y_min"), [None] * 5 + [1]),
        **dict.fromkeys(("roi_x_max", "roi_y_max"), [None] * 5 + [9]),
    }
    return Path(put_table(str(tmp_path / "m.parquet"), columns))


def test_every_row_has_its_row(locator: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "located.parquet"
    counts = proposing.propose(locator, str(manifest), str(out), min_confidence=0.6)
    assert counts == {"ok": 1, "none_found": 2, "failed": 2, "given": 1}
    rows = pq.read_table(out).to_pylist()
    assert [row["study_id"] for row in rows] == list("uvwxyz")
    assert [row["image_uri"] for row in rows] == [f"images/{name}.png" for name in "abcdea"]
    names = ("roi_x_min", "roi_y_min", "roi_x_max", "roi_y_max")
    boxes = [tuple(row[name] for name in names) for row in rows]
    assert boxes == [(30, 10, 70, 20), *[(None,) * 4] * 4, (1, 1, 9, 9)]
    assert [row["roi_proposed"] for row in rows] == [True, *[False] * 5]
    assert [row["roi_confidence"] for row in rows] == [1.0, *[None] * 5]
    assert [row["locate_status"] for row in rows] == [
        *("ok", "none_found", "none_found", "failed", "failed", "ok")
    ]
    assert [row["locate_code"] for row in rows[3:]] == ["unreadable_image", "object_missing", None]
    assert rows[0]["locator_sha256"] == rows[1]["locator_sha256"] is not None


def test_the_locators_own_confidence_is_asked_for(
    locator: Path, manifest: Path, tmp_path: Path
) -> None:
    counts = proposing.propose(locator, str(manifest), str(tmp_path / "o.parquet"))
    assert counts["ok"] == 2  # it takes every proposal


def test_nothing_is_replaced_and_no_proposal_becomes_a_drawn_box(
    locator: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.parquet"
    proposing.propose(locator, str(manifest), str(out))
    with pytest.raises(UserError, match=r"o.parquet: exists"):
        proposing.propose(locator, str(manifest), str(out))
    with pytest.raises(UserError) as raised:
        proposing.propose(locator, str(out), str(tmp_path / "again.parquet"))
    assert "'roi_proposed'" in raised.value.details[0]
    assert not (tmp_path / "again.parquet").exists()


@pytest.mark.live
def test_from_a_bucket_in_another_form(locator: Path, s3: str) -> None:
    objects.write(f"{s3}/in/a.png", image(255))
    given = put_table(f"{s3}/in/m.parquet", {"image_uri": ["a.png"], "roi": [None]})
    proposing.propose(locator, given, f"{s3}/out/m.parquet")
    data = objects.read(f"{s3}/out/m.parquet").data
    (row,) = pq.read_table(io.BytesIO(data)).to_pylist()
    assert (row["roi"], row["image_uri"]) == ([30, 10, 70, 20], f"{s3}/in/a.png")
