"""DICOM files in a manifest: the frame and the warnings reach the results."""

from pathlib import Path

import pandas as pd

from archives.packing.loader import load_archive
from batch import run
from batch.results import schema
from sonode.console import progress
from tests.handlers import dicoms


def test_frames_and_warnings_of_dicom_files(archive_path: Path, tmp_path: Path) -> None:
    kinds = dicoms.all_kinds()
    for name in ("loop", "jpeg loop", "grey", "palette"):
        (tmp_path / f"{name}.dcm").write_bytes(kinds[name])
    asked = [
        ("loop.dcm", 0),
        ("loop.dcm", 1),
        ("loop.dcm", None),
        ("loop.dcm", 3),
        ("jpeg loop.dcm", 2),
        ("grey.dcm", None),
        ("palette.dcm", 0),
    ]
    manifest = pd.DataFrame(asked, columns=["image_uri", "frame"]).astype({"frame": "Int64"})
    manifest.to_parquet(tmp_path / "m.parquet")
    with load_archive(archive_path) as archive:
        run.score(
            *(str(tmp_path / "m.parquet"), str(tmp_path / "out"), archive),
            explain=None,
            batch_size=3,
            progress=progress,
        )
    rows = schema.read(str(tmp_path / "out")).to_pandas()
    codes = [None, None, "invalid_frame", "invalid_frame", None, None, None]
    assert [code if isinstance(code, str) else None for code in rows["code"]] == codes
    assert "0 to 2" in rows["message"][3]
    assert rows["malignancy_probability"][0] != rows["malignancy_probability"][1]
    warnings = [set() if found is None else set(found) for found in rows["warnings"]]
    assert "whole_frame" in warnings[0]
    assert list(rows["roi_used"][5]) == [2, 1, 14, 11]
    assert "ultrasound_region_used" in warnings[5]
    assert "colour_doppler" in warnings[6]
