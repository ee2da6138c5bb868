"""Images of one day in an Orthanc, and a table of their boxes."""

from pathlib import Path

from tests.batch.dicom import ultrasound
from tests.batch.dicom.pacs import Orthanc

UNFIT = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6"}  # a kind that no object can refer to


def fill(orthanc: Orthanc, folder: Path, images: int, unfit: int = 0) -> str:
    """Put images of 27 November 2026, two a study, then unfit ones; give the table's path."""
    orthanc.empty()
    lines = ["instance_uid,roi_x_min,roi_y_min,roi_x_max,roi_y_max"]
    for number in range(images + unfit):
        study = {"StudyInstanceUID": f"2.25.1{number // 2}", "StudyDate": "20261127"}
        uids = {"SeriesInstanceUID": f"2.25.2{number // 2}", "SOPInstanceUID": f"2.25.3{number}"}
        more = UNFIT if number >= images else {}
        orthanc.put(ultrasound.data_of("examples_rgb_color.dcm", **study, **uids, **more))
        lines.append(f"2.25.3{number},60,60,180,150")
    (folder / "boxes.csv").write_text("\n".join(lines))
    return str(folder / "boxes.csv")
